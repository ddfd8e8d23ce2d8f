"""Ask a running service for a forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marketray.errors import ServingError

__all__ = ["predict"]


def predict(
    url: str,
    instrument: str | None = None,
    bars: Sequence[Mapping[str, Any]] | None = None,
    *,
    timeout_seconds: float = 30.0,
) -> dict[str, Any]:
    """The answer of ``POST <url>/predict``, with the keys of `marketray.serving.schemas.PredictResponse`.

    Parameters
    ----------
    url:
        Address of the service, such as ``http://127.0.0.1:8000``.
    instrument:
        Refused by the service unless it is the served one; None: whichever is served.
    bars:
        Bars to forecast from, sorted, as the API takes them; None: the service's latest bar.

    Raises
    ------
    ServingError
        The service cannot be reached, or it refused; the message holds its reason.
    """
    import httpx

    body = {"instrument": instrument, "bars": bars}
    content = {k: v for k, v in body.items() if v is not None}
    address = f"{url.rstrip('/')}/predict"
    try:
        answer = httpx.post(address, json=content, timeout=timeout_seconds)
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as e:
        msg = f"POST {address}: {e or type(e).__name__}"
        raise ServingError(msg, hint="start the service with `marketray serve`, or pass its --url") from e
    try:
        loaded: Any = answer.json()
    except ValueError as e:
        msg = f"POST {address}: status {answer.status_code} without JSON; required: a marketray service"
        raise ServingError(msg, hint="check --url") from e
    if not answer.is_success or not isinstance(loaded, dict):
        told = loaded if isinstance(loaded, dict) else {}
        reason = told.get("detail", answer.text[:200])
        msg = f"POST {address}: {answer.status_code} {told.get('title', '')}: {reason}"
        raise ServingError(msg, hint=told.get("hint"))
    return loaded
