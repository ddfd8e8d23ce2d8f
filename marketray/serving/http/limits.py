"""How large a request's body may be, said beforehand (Content-Length) or found while it is read (chunked)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import Request

from marketray.serving.problems import ProblemError, problem, problem_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from marketray.serving.schemas import Problem

__all__ = ["BodyLimit"]


class BodyLimit:
    """Middleware that answers 413 to bodies that are too large. FastAPI's own limit answers plain text.

    Parameters
    ----------
    most:
        Bytes of a body.
    more:
        Bytes of a body by path, where it is another number.
    """

    def __init__(self, app: ASGIApp, most: int, more: Mapping[str, int]) -> None:
        self._app = app
        self._most = most
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._more.get(scope["path"], self._most)
        told = Headers(scope=scope).get("content-length", "")
        if told.isascii() and told.isdigit() and (len(told) > 15 or int(told) > most):
            answer = problem_response(Request(scope), _too_large(most))
            await answer(scope, receive, send)
            return
        read = 0

        async def count() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise ProblemError(_too_large(most))
            return message

        await self._app(scope, count, send)


def _too_large(most: int) -> Problem:
    return problem(
        "too-large",
        413,
        "The body is too large",
        f"body: got more than {most / 1e6:g} MB; required: at most that",
        required=f"at most {most / 1e6:g} MB",
        hint="send it in parts, or raise serving.max_body_mb (of /predict/batch: serving.max_batch_mb)",
    )
