"""The HTTP interface: routes over slots, free of Ray."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Body, FastAPI, Header, Request
from fastapi.openapi.utils import get_openapi

import marketray
from marketray.serving.problems import MEDIA_TYPE, ProblemError, install, problem, request_id_of
from marketray.serving.schemas import (
    Health,
    Index,
    ModelInfo,
    PredictRequest,
    PredictResponse,
    Problem,
    Ready,
)
from marketray.serving.state import bars_frame

if TYPE_CHECKING:
    import polars as pl

    from marketray.serving.slot import SlotStatus

__all__ = ["Router", "create_api"]

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


class Router(Protocol):
    """What the routes need: the slot that answers, reached by asynchronous calls."""

    async def status(self) -> SlotStatus:
        """Status of the slot; raises ProblemError where none answers in time."""
        ...

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> dict[str, Any]:
        """Answer without request id and latency; raises ProblemError where there is none."""
        ...


def create_api(router: Router, instrument: str) -> FastAPI:
    """The application. `instrument` is the served one; the documented examples use it."""
    app = FastAPI(
        title="marketray",
        version=marketray.__version__,
        description="Forecasts of a registered model. Errors are RFC 9457 problem documents.",
    )
    install(app)
    _add_probes(app, router)
    _add_predict(app, router, instrument)
    documented = cache(lambda: _document(app))
    app.openapi = documented  # type: ignore[method-assign]  # FastAPI's way to extend the document
    return app


def _add_probes(app: FastAPI, router: Router) -> None:
    @app.get("/", summary="Where to find what")
    async def index() -> Index:
        endpoints = {
            "/health": "liveness",
            "/ready": "readiness",
            "/model-info": "the served model",
            "/predict": "POST: forecast",
            "/docs": "documentation",
        }
        return Index(service="marketray", version=marketray.__version__, endpoints=endpoints)

    @app.get("/health", summary="Liveness: 200 while the process works")
    async def health() -> Health:
        try:
            loaded = (await router.status()).info is not None
        except ProblemError:
            loaded = False
        return Health(status="healthy" if loaded else "degraded", model_loaded=loaded)

    @app.get("/ready", summary="Readiness: a model and fresh bars are there", responses=_problems(503))
    async def ready() -> Ready:
        status = await router.status()
        if status.problem is not None:
            raise ProblemError(status.problem)
        assert status.info is not None
        return Ready(
            status="ready",
            model_version=status.info["model_version"],
            last_bar_end_at=status.info["last_bar_end_at"],
        )

    @app.get("/model-info", summary="The served model and what it needs", responses=_problems(503))
    async def model_info() -> ModelInfo:
        status = await router.status()
        if status.info is None:
            raise ProblemError(status.problem or problem("no-model", 503, "No model", "no model is loaded"))
        return ModelInfo(**status.info)


def _add_predict(app: FastAPI, router: Router, instrument: str) -> None:
    examples: Any = {
        "latest": {"summary": "From the service's latest bar", "value": {}},
        "named": {"summary": "The same, for a named instrument", "value": {"instrument": instrument}},
    }
    request_body = Body(
        None,
        openapi_examples=examples,
        description="Left out or {}: from the latest bar. With bars: /model-info's lookback_bars or more.",
    )

    @app.post("/predict", summary="Forecast", responses=_problems(400, 422, 503, 504))
    async def predict(
        request: Request,
        body: PredictRequest | None = request_body,
        x_request_id: RequestId = None,
    ) -> PredictResponse:
        started = time.perf_counter()
        del x_request_id  # checked and documented here, read by request_id_of
        asked = body or PredictRequest()
        bars = None if asked.bars is None else bars_frame(asked.bars)
        answer = await router.predict(asked.instrument, bars)
        latency_ms = round((time.perf_counter() - started) * 1e3, 3)
        return PredictResponse(**answer, request_id=request_id_of(request), latency_ms=latency_ms)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    titles = {
        400: "The body is not JSON",
        422: "The request or its bars cannot be used",
        503: "No model or no fresh bar",
        504: "No answer in time",
    }
    return {s: {"model": Problem, "description": titles[s]} for s in statuses}


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; FastAPI lists problems as application/json, which they are not."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    return schema
