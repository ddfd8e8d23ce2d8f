"""New bars, and the forecast that follows from them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Security

from marketray.serving.http.announce import announce
from marketray.serving.http.auth import bearer, guarded
from marketray.serving.http.intake import take
from marketray.serving.http.routes.documented import RequestId, problems
from marketray.serving.http.schemas_records import BarsRequest, BarsTaken
from marketray.serving.problems import ProblemError, problem, request_id_of
from marketray.serving.router import Ask
from marketray.serving.schemas import Forecasted, Problem

if TYPE_CHECKING:
    from marketray.serving.http.api import Service

__all__ = ["add"]


def add(app: FastAPI, service: Service) -> None:
    """POST /bars."""
    router = APIRouter(route_class=guarded(service.token), dependencies=[Security(bearer)])

    @router.post(
        "/bars",
        summary="Append finished bars",
        responses=problems(400, 401, 403, 409, 413, 422, 503, 504),
    )
    async def bars(request: Request, body: BarsRequest, x_request_id: RequestId = None) -> BarsTaken:
        del x_request_id  # checked and documented here, read by request_id_of
        served = service.settings.instrument
        if body.instrument not in (None, served):
            raise ProblemError(_other_instrument(str(body.instrument), served))
        appended = await take(service, body.bars)
        _, answer = await service.predict(Ask(request_id_of(request), datetime.now(UTC)))
        if isinstance(answer, Problem):
            info = (await service.status()).info
            end = None if info is None else info["last_bar_end_at"]
            return BarsTaken(**appended, last_bar_end_at=end, forecast=None, problem=answer)
        await asyncio.to_thread(announce, service.store, service.settings, answer)
        return BarsTaken(
            **appended,
            last_bar_end_at=answer.decision_at,
            forecast=Forecasted.model_validate_json(answer.body),
            problem=None,
        )

    app.include_router(router)


def _other_instrument(got: str, served: str) -> Problem:
    return problem(
        "unknown-instrument",
        422,
        "This instrument is not served",
        f"instrument: got {got!a}; required: {served!r}",
        got=ascii(got),
        required=served,
    )
