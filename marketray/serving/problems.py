"""Error answers as RFC 9457 problem documents: what was got, what is required."""

from __future__ import annotations

import logging
import re
import uuid
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from marketray.serving.schemas import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MEDIA_TYPE", "ProblemError", "install", "problem", "problem_response", "request_id_of"]

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_SHOWN = 200  # characters of a wrong value that an answer repeats
_LISTED = 20  # wrong fields that an answer lists
_FOLDERS = re.compile(
    r"(?<![\w/.])(?<!GET )(?<!PUT )(?<!HEAD )(?<!POST )(?<!PATCH )(?<!DELETE )/+(?:(?!\s)[^/\n:;,'\"]+/+)+"
)
"""Of an absolute path all but its name, spaces inside included; an endpoint after its method is no path."""


class ProblemError(HTTPException):
    """Ends a request with this problem, also from within the reading of its body."""

    def __init__(self, body: Problem) -> None:
        super().__init__(body.status, body.detail)
        self.body = body


def problem(kind: str, status: int, title: str, detail: str, **more: Any) -> Problem:
    """Problem of type ``urn:marketray:problem:<kind>``; `more`: got, required, hint, errors.

    Texts may be those of errors: clients read ``…/serving.json`` where such a text has a path of the server.
    """
    texts = {"detail": detail, **more}
    shown = {key: _FOLDERS.sub("…/", v) if isinstance(v, str) else v for key, v in texts.items()}
    return Problem(type=f"urn:marketray:problem:{kind}", title=title, status=status, **shown)


def request_id_of(request: Request) -> str:
    """The client's X-Request-ID, else a new random id; the same one for the whole request."""
    known: str | None = getattr(request.state, "request_id", None)
    if known is None:
        known = request.headers.get("x-request-id") or uuid.uuid4().hex
        request.state.request_id = known
    return known


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def problem_response(request: Request, body: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to `request` that tells of this problem."""
    body = body.model_copy(update={"request_id": request_id_of(request)[:_SHOWN]})
    if body.status == 503:
        headers = {"Retry-After": "1", **(headers or {})}
    if body.status == 401:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    content = body.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=body.status, headers=headers, media_type=MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return problem_response(request, error.body)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details: Sequence[Any] = error.errors()
    if any(d["type"] == "json_invalid" for d in details):
        where = details[0]["loc"][-1]
        reason = details[0].get("ctx", {}).get("error", "malformed")
        body = problem(
            "malformed-json",
            400,
            "The body is not JSON",
            f"body: {reason} at character {where}",
            got="malformed JSON",
            required="a JSON object",
        )
        return problem_response(request, body)
    if any(isinstance(d.get("input"), bytes) for d in details):  # FastAPI parses no other content type
        got = request.headers.get("content-type") or "no content type"
        body = problem(
            "invalid-request",
            422,
            "The request is not valid",
            f"Content-Type: got {_printable(got)}; required: application/json",
            got=_printable(got),
            required="application/json",
            hint="send the header 'Content-Type: application/json', with curl -H",
        )
        return problem_response(request, body)
    errors = [_field(d) for d in details[:_LISTED]]
    first = errors[0]
    body = problem(
        "invalid-request",
        422,
        "The request is not valid",
        f"{first['field']}: {first['required']} ({len(details)} wrong in all)",
        got=first["got"],
        required=first["required"],
        errors=errors,
    )
    return problem_response(request, body)


def _field(detail: Any) -> dict[str, str]:
    got = detail.get("input")
    shown = f"{type(got).__name__} of {len(got)}" if isinstance(got, dict | list) else repr(got)
    return {
        "field": _printable(".".join(map(str, detail["loc"]))),
        "got": _printable(shown),
        "required": _printable(detail["msg"].removeprefix("Value error, ")),
    }


def _printable(text: str) -> str:
    """Shortened, and without lone surrogates, which JSON can carry but UTF-8 cannot."""
    return text[:_SHOWN].encode("utf-8", "backslashreplace").decode()


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path[:_SHOWN]}: {error.detail}"
    body = problem("http", error.status_code, str(error.detail), detail, hint="GET / lists the endpoints")
    return problem_response(request, body, dict(error.headers or {}))


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    logger.error("request %s failed", request_id_of(request), exc_info=error)
    body = problem(
        "internal", 500, "Internal error", "the service failed on this request; its log has the cause"
    )
    return problem_response(request, body)
