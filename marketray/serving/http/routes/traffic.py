"""The traffic: which slot holds which model and gets how many of the requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Body, FastAPI, Request, Security

from marketray.serving.http.auth import bearer, guarded
from marketray.serving.http.routes.documented import problems
from marketray.serving.http.schemas_traffic import (
    ReloadRequest,
    RolloutRequest,
    RolloutState,
    TrafficRequest,
    TrafficState,
)
from marketray.serving.rollouts.journal import Journal, traffic_json
from marketray.serving.traffic import SLOTS, hundredths

if TYPE_CHECKING:
    from marketray.serving.http.api import Service
    from marketray.serving.store import Store

__all__ = ["add"]

_HISTORY = 50
_CHANGING = problems(400, 401, 403, 409, 413, 422, 503, 504)


def add(app: FastAPI, service: Service) -> None:
    """GET and PUT /traffic, POST and DELETE /traffic/rollout, POST /traffic/rollback, POST /reload-model."""

    @app.get("/traffic", summary="The traffic in force and its history", responses=problems(503))
    async def traffic() -> TrafficState:
        return await _state(service)

    reload_body = Body(None, description="Left out or {}: the champion, into the slot that most go to.")
    router = APIRouter(route_class=guarded(service.token), dependencies=[Security(bearer)])

    @router.put("/traffic", summary="Change the traffic", responses=_CHANGING)
    async def change(request: Request, body: TrafficRequest) -> TrafficState:
        asked: dict[str, Any] = body.model_dump(exclude_unset=True)
        changes = {name: value for name, value in asked.items() if value is not None or name == "shadow"}
        if "weights" in changes:
            changes["weights"] = hundredths(changes["weights"])
        await service.control.change(_who(request), **changes)
        return await _state(service)

    @router.post("/reload-model", summary="Put a version into a slot", responses=_CHANGING)
    async def reload_model(
        request: Request,
        body: ReloadRequest | None = reload_body,
    ) -> TrafficState:
        asked = body or ReloadRequest()
        slot: str | None = asked.slot
        if slot is None:
            slot = await asyncio.to_thread(_busiest, service.store)
        await service.control.change(_who(request), models={slot: asked.model})
        return await _state(service)

    @router.post("/traffic/rollout", summary="Begin a rollout", responses=_CHANGING)
    async def begin(request: Request, body: RolloutRequest) -> RolloutState:
        rules = body.model_dump(include=body.model_fields_set - {"slot", "model"})
        begun = await service.control.begin(_who(request), body.slot, body.model, rules)
        return RolloutState.model_validate(begun)

    @router.delete(
        "/traffic/rollout",
        summary="Break the rollout off: back to the traffic before",
        responses=problems(401, 403, 409, 503, 504),
    )
    async def cancel(request: Request) -> RolloutState:
        ended = await service.control.cancel(_who(request), "")
        return RolloutState.model_validate(ended)

    @router.post(
        "/traffic/rollback",
        summary="Cancel the rollout; where none runs, back to what answered before the last change",
        responses=problems(401, 403, 409, 422, 503, 504),
    )
    async def rollback(request: Request) -> TrafficState:
        await service.control.rollback(_who(request))
        return await _state(service)

    app.include_router(router)


def _who(request: Request) -> str:
    return f"http {request.client.host}" if request.client is not None else "http"


def _busiest(store: Store) -> str:
    """The slot that most requests go to."""
    entry = store.traffic.current()
    assert entry is not None, "the application is built after its traffic was declared"
    return max(SLOTS, key=lambda slot: entry.traffic.weights[slot])


async def _state(service: Service) -> TrafficState:
    stored, answering = await asyncio.gather(asyncio.to_thread(_stored, service.store), service.versions())
    return TrafficState.model_validate({**stored, "answering": answering, "unwell": service.unwell})


def _stored(store: Store) -> dict[str, Any]:
    """What the store knows; blocks."""
    history = store.traffic.history(_HISTORY)
    last = store.rollouts.history(limit=1)
    return {
        **traffic_json(history[0]),
        "sticky": history[0].traffic.sticky,
        "history": [traffic_json(entry) for entry in history],
        "rollout": Journal(store.database).shown(last[0]) if last else None,
    }
