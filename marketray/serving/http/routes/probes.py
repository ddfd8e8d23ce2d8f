"""Whether the service lives, whether it can answer, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request, Response

import marketray
from marketray.serving.http.routes.documented import problems
from marketray.serving.http.routes.page import page, prefers_html
from marketray.serving.problems import ProblemError, problem
from marketray.serving.schemas import Health, Index, ModelInfo, Ready

if TYPE_CHECKING:
    from fastapi import FastAPI

    from marketray.serving.http.api import Service

__all__ = ["add"]


def add(app: FastAPI, service: Service) -> None:
    """GET /, /health, /ready and /model-info."""

    @app.get(
        "/",
        summary="Where to find what; the page where HTML is asked for",
        response_model=Index,
        responses={200: {"content": {"text/html": {}}}},
    )
    async def index(request: Request, response: Response) -> Index | Response:
        if prefers_html(request.headers.get("accept", "")):
            return page(request)
        response.headers["Vary"] = "Accept"
        endpoints = {
            "/health": "liveness",
            "/ready": "readiness",
            "/model-info": "the served model",
            "/predict": "POST: forecast",
            "/predictions/decisions": "what the models said of the latest decisions",
            "/bars/recent": "the latest bars",
            "/docs": "documentation",
        }
        return Index(service="marketray", version=marketray.__version__, endpoints=endpoints)

    @app.get("/health", summary="Liveness: 200 while the process works")
    async def health() -> Health:
        try:
            loaded = (await service.status()).info is not None
        except ProblemError:
            loaded = False
        return Health(status="healthy" if loaded else "degraded", model_loaded=loaded)

    @app.get("/ready", summary="Readiness: a model and fresh bars are there", responses=problems(503))
    async def ready() -> Ready:
        status = await service.status()
        if status.problem is not None:
            raise ProblemError(status.problem)
        assert status.info is not None
        return Ready(
            status="ready",
            model_version=status.info["model_version"],
            last_bar_end_at=status.info["last_bar_end_at"],
        )

    @app.get("/model-info", summary="The served model and what it needs", responses=problems(503))
    async def model_info() -> ModelInfo:
        status = await service.status()
        if status.info is None:
            raise ProblemError(status.problem or problem("no-model", 503, "No model", "no model is loaded"))
        return ModelInfo(**status.info)
