"""Drift: whether the market has left the one that the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fastapi import APIRouter, FastAPI, Security

from marketray.serving.http.auth import bearer, guarded
from marketray.serving.http.routes.documented import problems
from marketray.serving.problems import ProblemError, problem

if TYPE_CHECKING:
    from marketray.serving.http.api import Service

__all__ = ["add"]


def add(app: FastAPI, service: Service) -> None:
    """GET /monitoring/drift/check and POST /monitoring/drift/alert."""

    @app.get("/monitoring/drift/check", summary="Drift of features and errors", responses=problems(501))
    async def check() -> None:
        _not_yet()

    router = APIRouter(route_class=guarded(service.token), dependencies=[Security(bearer)])

    @router.post("/monitoring/drift/alert", summary="Tell of drift", responses=problems(401, 403, 501))
    async def alert() -> None:
        _not_yet()

    app.include_router(router)


def _not_yet() -> NoReturn:
    detail = "this release does not watch drift; required: one that does"
    raise ProblemError(problem("no-monitoring", 501, "Drift is not watched yet", detail))
