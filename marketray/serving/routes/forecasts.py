"""Forecasts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Body, FastAPI, Request, Response

from marketray.serving.problems import ProblemError, request_id_of
from marketray.serving.router import Ask
from marketray.serving.routes.documented import ClientKey, RequestId, problems
from marketray.serving.schemas import PredictRequest, PredictResponse, Problem
from marketray.serving.state import bars_frame

if TYPE_CHECKING:
    from marketray.serving.api import Service

__all__ = ["add"]


def add(app: FastAPI, service: Service) -> None:
    """POST /predict."""
    examples: Any = {
        "latest": {"summary": "From the service's latest bar", "value": {}},
        "named": {
            "summary": "The same, for a named instrument",
            "value": {"instrument": service.settings.instrument},
        },
    }
    request_body = Body(
        None,
        openapi_examples=examples,
        description="Left out or {}: from the latest bar. With bars: /model-info's lookback_bars or more.",
    )

    @app.post(
        "/predict",
        summary="Forecast",
        response_model=PredictResponse,
        responses=problems(400, 422, 503, 504),
    )
    async def predict(
        request: Request,
        body: PredictRequest | None = request_body,
        x_request_id: RequestId = None,
        x_client_key: ClientKey = None,
    ) -> Response:
        started = time.perf_counter()
        del x_request_id  # checked and documented here, read by request_id_of
        asked = body or PredictRequest()
        request_id = request_id_of(request)
        bars = None if asked.bars is None else bars_frame(asked.bars)
        at = datetime.now(UTC)
        _, answer = await service.predict(Ask(request_id, at, x_client_key, asked.instrument, bars))
        if isinstance(answer, Problem):
            raise ProblemError(answer)
        document = answer.document(request_id, (time.perf_counter() - started) * 1e3)
        return Response(document, media_type="application/json")
