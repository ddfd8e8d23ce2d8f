"""Forecasts that follow from an ingest reach subscribers too, each once."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from marketray.errors import StoreError
from marketray.lake import Lake
from marketray.serving.http.announce import Announcer
from marketray.serving.http.stream import Feed
from marketray.serving.problems import ProblemError, problem
from marketray.serving.store.events import Events
from marketray.settings import load_settings
from tests.serving.conftest import local
from tests.serving.local import LocalService
from tests.serving.market import INSTRUMENT, Market, store_bars

MINUTE = timedelta(minutes=1)


def test_an_ingest_is_announced_once(home: Path, market: Market) -> None:
    settings = load_settings(None, {"home": str(home), "instrument": INSTRUMENT})
    store_bars(Lake(settings.lake_uri), market.bars.head(7_998))
    service = local(settings, market)
    announcers = Announcer(service), Announcer(service)

    async def look() -> None:
        for announcer in announcers:
            await announcer.look()

    asyncio.run(look())
    asyncio.run(look())
    store_bars(Lake(settings.lake_uri), market.bars)
    asyncio.run(service.control.tell_slots())
    asyncio.run(look())
    events = service.store.events.after(0)
    assert [event.kind for event in events] == ["forecast"] * 2
    assert [event.payload["last_close"] for event in events] == [
        market.bars["close"][7_997],
        market.bars["close"][-1],
    ]
    last = market.bars["time"][-1]
    assert events[1].key == f"{INSTRUMENT}|{(last + MINUTE).isoformat()}|7"
    assert events[1].payload["bar"] == {"time": last.isoformat(), "close": market.bars["close"][-1]}
    assert service.attempts == []  # nobody asked


def test_nothing_is_announced_without_a_forecast(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none() -> object:
        return problem("no-state", 503, "No usable bars", "none")

    async def late() -> object:
        raise ProblemError(problem("slot-late", 503, "No answer in time", "late"))

    for answer in (none, late):
        monkeypatch.setattr(service, "latest", answer)
        asyncio.run(Announcer(service).look())
    assert service.store.events.last() is None


def test_the_feed_looks_while_somebody_listens(service: LocalService) -> None:
    looks = []

    async def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            msg = "away"
            raise StoreError(msg)
        events: Events = service.store.events
        await asyncio.to_thread(events.publish, "forecast", {"n": len(looks)}, key="k")

    async def listen() -> None:
        feed = Feed(service.store.events, poll_seconds=0.01, look=look, look_seconds=0.01)
        async with feed.joined():
            texts = feed.texts(0)
            assert json.loads(await anext(texts))["data"] == {"n": 2}
            await texts.aclose()
        after = len(looks)
        await asyncio.sleep(0.1)
        assert len(looks) <= after + 1

    asyncio.run(listen())
