"""Who may change something: callers with the service's bearer token."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from marketray.serving.problems import ProblemError, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fastapi import Request, Response

__all__ = ["TOKEN_VARIABLE", "Token", "bearer", "guarded"]

TOKEN_VARIABLE = "MARKETRAY_TOKEN"  # noqa: S105  # a variable's name
"""Environment variable that holds the token where the service is built."""

bearer = HTTPBearer(auto_error=False, description=f"The value of {TOKEN_VARIABLE}.")
"""For the OpenAPI document; `guarded` does the work, before the body is read."""


class Token:
    """The token that callers must show; only its SHA-256 is kept, so nothing can show it.

    Parameters
    ----------
    secret:
        The token, of at least one byte.
    """

    def __init__(self, secret: bytes) -> None:
        self._digest = sha256(secret).digest()

    def __repr__(self) -> str:
        return "Token(***)"

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Token | None:
        """The token of `TOKEN_VARIABLE` without space around it; None where it is unset or empty."""
        secret = os.fsencode(environment.get(TOKEN_VARIABLE, "").strip())
        return cls(secret) if secret else None

    def allows(self, given: bytes) -> bool:
        """Whether this is the token, in a time that does not depend on where it differs."""
        return hmac.compare_digest(sha256(given).digest(), self._digest)


def guarded(token: Token | None) -> type[APIRoute]:
    """Routes that answer callers with the token only: 403 where the service has none, 401 for a wrong one."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def check(request: Request) -> Response:
                _require(token, request)
                return await handle(request)

            return check

    return Guarded


def _require(token: Token | None, request: Request) -> None:
    if token is None:
        raise ProblemError(
            problem(
                "no-token",
                403,
                "Changes are switched off",
                f"{TOKEN_VARIABLE} was not set where the service was built; required: a token",
                required=TOKEN_VARIABLE,
                hint=f"set {TOKEN_VARIABLE} before `marketray serve`, or before Ray is started for "
                "`serve deploy`, and deploy again",
            )
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.allows(given.strip().encode("latin-1")):
        return
    got = "no Authorization header"
    if scheme:
        got = "another token" if scheme.lower() == "bearer" else "another scheme than Bearer"
    raise ProblemError(
        problem(
            "unauthorized",
            401,
            "The token is not the service's",
            f"Authorization: got {got}; required: Bearer and the value of {TOKEN_VARIABLE}",
            got=got,
            required="Authorization: Bearer TOKEN",
        )
    )
