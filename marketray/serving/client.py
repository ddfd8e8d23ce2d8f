"""Ask a running service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marketray.errors import ServingError

__all__ = ["AnsweredError", "ask", "predict"]

_HINTS = {401: "set MARKETRAY_TOKEN to the service's token"}


class AnsweredError(ServingError):
    """The service answered that it does not do this.

    Attributes
    ----------
    status:
        Of the answer.
    """

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


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
        As `ask`.
    """
    body = {"instrument": instrument, "bars": bars}
    content = {k: v for k, v in body.items() if v is not None}
    return ask("POST", url, "/predict", content, timeout_seconds=timeout_seconds)


def ask(
    method: str,
    url: str,
    path: str,
    content: Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
    timeout_seconds: float = 30.0,
) -> dict[str, Any]:
    """The object that the service answers.

    Parameters
    ----------
    url:
        Address of the service, such as ``http://127.0.0.1:8000``.
    content:
        JSON body; None: none.
    token:
        What the service must be shown where something changes.

    Raises
    ------
    AnsweredError
        It refused; the message holds its reason.
    ServingError
        It cannot be reached, or something else answers there.
    """
    import httpx

    address = f"{url.rstrip('/')}{path}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.request(method, address, json=content, headers=headers, timeout=timeout_seconds)
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as e:
        msg = f"{method} {address}: {e or type(e).__name__}"
        raise ServingError(msg, hint="start the service with `marketray serve`, or pass its --url") from e
    try:
        loaded: Any = answer.json()
    except ValueError as e:
        msg = f"{method} {address}: status {answer.status_code} without JSON; required: a marketray service"
        raise ServingError(msg, hint="check --url") from e
    if not answer.is_success or not isinstance(loaded, dict):
        told = loaded if isinstance(loaded, dict) else {}
        reason = told.get("detail", answer.text[:200])
        msg = f"{method} {address}: {answer.status_code} {told.get('title', '')}: {reason}"
        hint = told.get("hint") or _HINTS.get(answer.status_code)
        raise AnsweredError(msg, status=answer.status_code, hint=hint)
    return loaded
