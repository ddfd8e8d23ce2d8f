"""Forecasts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Body, FastAPI, Request, Response

from marketray.serving.http.routes.documented import ClientKey, RequestId, problems
from marketray.serving.http.schemas_records import BatchRequest, BatchResponse
from marketray.serving.problems import ProblemError, request_id_of
from marketray.serving.router import Ask
from marketray.serving.schemas import PredictRequest, PredictResponse, Problem
from marketray.serving.state import bars_frame

if TYPE_CHECKING:
    from marketray.serving.http.api import Service

__all__ = ["add"]


def add(app: FastAPI, service: Service) -> None:
    """POST /predict and /predict/batch."""
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
        responses=problems(400, 413, 422, 503, 504),
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

    @app.post(
        "/predict/batch",
        summary="Forecasts of rows of features, in one call of one model",
        responses=problems(400, 413, 422, 503, 504),
    )
    async def predict_batch(
        request: Request,
        body: BatchRequest,
        x_request_id: RequestId = None,
        x_client_key: ClientKey = None,
    ) -> BatchResponse:
        started = time.perf_counter()
        del x_request_id
        request_id = request_id_of(request)
        rows = await asyncio.to_thread(np.array, body.rows, np.float32)  # None becomes NaN
        ask = Ask(request_id, datetime.now(UTC), x_client_key, features=(body.columns, rows))
        slot, batch = await service.predict_features(ask)
        if isinstance(batch, Problem):
            raise ProblemError(batch)
        return BatchResponse(
            model_version=batch.info["model_version"],
            slot=slot,
            feature_catalog=batch.info["feature_catalog"],
            task=batch.info["task"],
            values=batch.values.tolist(),
            request_id=request_id,
            latency_ms=(time.perf_counter() - started) * 1e3,
        )
