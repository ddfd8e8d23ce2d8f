"""What the OpenAPI document says of errors and headers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header

from marketray.serving.schemas import Problem

__all__ = ["ClientKey", "RequestId", "problems"]

RequestId = Annotated[
    str | None,
    Header(
        alias="X-Request-ID",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Comes back as request_id; made up where it is left out.",
    ),
]

ClientKey = Annotated[
    str | None,
    Header(
        alias="X-Client-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Who asks: the same key gets the same slot while the traffic is split.",
    ),
]

_TITLES = {
    400: "The body is not JSON",
    401: "No or a wrong bearer token",
    403: "Changes are switched off: the service has no token",
    404: "There is no such thing",
    409: "Somebody else changed it first",
    413: "The body is too large",
    422: "The request cannot be used",
    501: "Not part of this service yet",
    503: "No model, no fresh bar, or nobody who could answer",
    504: "No answer in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can end in these problems."""
    return {s: {"model": Problem, "description": _TITLES[s]} for s in statuses}
