"""What was lately: bars, and what the models said of the latest decisions."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import polars as pl
from fastapi import Query
from pydantic import BaseModel, Field

from marketray.lake import Lake
from marketray.serving.http.routes.documented import problems
from marketray.serving.state import read_tail
from marketray.serving.store.decisions import latest_decisions
from marketray.serving.store.scores import Arm

if TYPE_CHECKING:
    from fastapi import FastAPI

    from marketray.serving.http.api import Service
    from marketray.serving.store import Store

__all__ = ["Decided", "Decisions", "RecentBar", "RecentBars", "add"]

_CHANGES = 50  # of the traffic, among which the models are looked for
_ARMS = 6

Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many.")]


class RecentBar(BaseModel):
    """The end of a bar."""

    end_at: datetime = Field(description="UTC.")
    close: float


class RecentBars(BaseModel):
    """The latest bars, oldest first."""

    instrument: str
    bar_interval_minutes: int
    bars: list[RecentBar]


class Decided(BaseModel):
    """What a model said of a decision, and what came true. Returns are fractions; null: not known."""

    decision_at: datetime
    target_at: datetime
    slot: str
    model_version: int
    shadow: bool = Field(description="It answered unseen.")
    last_close: float | None
    predicted_return: float | None
    probability_up: float | None
    direction: Literal["up", "down", "flat"] | None
    actual_return: float | None
    actual_reason: str | None = Field(description="Why there is no actual return though the time has come.")


class Decisions(BaseModel):
    """The latest decisions, newest first, one row for each model however many callers asked."""

    instrument: str
    decisions: list[Decided]


def add(app: FastAPI, service: Service) -> None:
    """GET /bars/recent and /predictions/decisions."""
    settings = service.settings

    @app.get("/bars/recent", summary="The latest bars", responses=problems(422, 503))
    async def bars(limit: Limit = 240) -> RecentBars:
        interval = timedelta(minutes=settings.bar_interval_minutes)
        lake = Lake(settings.lake_uri)
        found = await asyncio.to_thread(_bars, lake, service.store, settings.instrument, limit, interval)
        return RecentBars(
            instrument=settings.instrument,
            bar_interval_minutes=settings.bar_interval_minutes,
            bars=[RecentBar(end_at=time + interval, close=close) for time, close in found.iter_rows()],
        )

    @app.get(
        "/predictions/decisions",
        summary="What the models said of the latest decisions, each once",
        responses=problems(422, 503),
    )
    async def decisions(limit: Limit = 120) -> Decisions:
        found = await asyncio.to_thread(_decisions, service.store, settings.instrument, limit)
        return Decisions(instrument=settings.instrument, decisions=found)


def _bars(lake: Lake, store: Store, instrument: str, limit: int, interval: timedelta) -> pl.DataFrame:
    """The last bars of the lake and after them the live ones: time and close, oldest first; blocks."""
    stored = read_tail(lake, instrument, limit, interval=interval)
    last = None if stored.is_empty() else stored["time"][-1]
    live = store.bars.since(instrument, last)
    return pl.concat([stored, live.select(stored.columns)]).select("time", "close").tail(limit)


def _decisions(store: Store, instrument: str, limit: int) -> list[Decided]:
    """Of the models that were in the traffic lately; blocks."""
    arms: list[Arm] = []
    for entry in store.traffic.history(_CHANGES):
        arms += [Arm(slot, v) for slot, v in entry.traffic.models.items() if v is not None]
    latest = list(dict.fromkeys(arms))[:_ARMS]
    found = latest_decisions(store.database, instrument, latest, limit)
    return [Decided.model_validate(p, from_attributes=True) for p in found]
