"""What the ingress counts, records and follows, over slots that are plain objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from marketray.errors import StoreError
from marketray.serving import ingress as module
from marketray.serving.answers import Answer
from marketray.serving.ingress import Ingress
from marketray.serving.problems import ProblemError, problem
from marketray.serving.router import Ask
from marketray.serving.slot import SlotStatus
from marketray.serving.store import open_store
from marketray.serving.store.predictions import Prediction, Wanted
from marketray.serving.traffic import WHOLE, Traffic, bucket
from marketray.settings import Settings, load_settings
from tests.serving.forecasts import AT, forecast

BLUE, GREEN = forecast("blue"), forecast("green", -0.002)
EMPTY = problem("no-model", 503, "No model", "slot blue is empty")


class Handle:
    """Stands for a slot's Serve handle: calls of a method give its result, or raise it."""

    def __init__(self, **results: Any) -> None:
        self.results = {"version": 1, "predict": BLUE, **results}

    def __getattr__(self, method: str) -> Any:
        async def call(*_: Any) -> Any:
            result = self.results[method]
            if isinstance(result, Exception):
                raise result
            return result

        return SimpleNamespace(remote=call)


class Bench:
    """An ingress over two handles, running."""

    def __init__(self, home: str, blue: Handle, green: Handle, **traffic: Any) -> None:
        self.settings: Settings = load_settings(None, {"home": home, "instrument": "X"})
        self.store = open_store(self.settings.store_uri)
        given = {"weights": {"blue": WHOLE, "green": 0}, "models": {"blue": 1, "green": 2}, **traffic}
        self.store.traffic.declare(Traffic(**given), who="test")
        self.handles = {"blue": blue, "green": green}
        self.ingress: Ingress

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ingress]:
        self.ingress = Ingress(self.handles, SimpleNamespace(), self.settings)  # type: ignore[arg-type]
        async with self.ingress._lifespan(None):  # type: ignore[arg-type]
            yield self.ingress

    def ask(self, **more: Any) -> Any:
        """What one request is answered; the ingress has ended then."""

        async def once(ingress: Ingress) -> Any:
            _, found = await ingress.predict(Ask("r", AT, **more))
            await asyncio.sleep(0.02)  # the shadow's answer
            return found

        return self.within(once)

    def within(self, work: Callable[[Ingress], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with self.running() as ingress:
                return await work(ingress)

        return asyncio.run(run())

    def recorded(self) -> list[Prediction]:
        return sorted(self.store.predictions.history(Wanted())[0], key=lambda p: p.id)

    def counted(self, slot: str, version: int) -> tuple[int, int, int]:
        """Requests, errors and pairs."""
        for entry in self.ingress.outcomes.snapshot()["slots"]:
            if (entry["slot"], entry["version"]) == (slot, version):
                return entry["requests"], entry["errors"], entry["pairs"]
        return 0, 0, 0


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)


@pytest.fixture
def make(tmp_path: Any) -> Callable[..., Bench]:
    return lambda blue, green, **traffic: Bench(str(tmp_path), blue, green, **traffic)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_answer_is_recorded_when_the_ingress_ends(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=BLUE), Handle())
    assert bench.ask(client="ann") == BLUE
    (row,) = bench.recorded()
    assert (row.request_id, row.at, row.slot, row.shadow, row.bars) == ("r", AT, "blue", False, "state")
    assert (row.model_name, row.model_version, row.catalog_hash) == ("marketray-X", 1, "c")
    assert (row.instrument, row.decision_at, row.target_at) == ("X", AT, AT + timedelta(minutes=30))
    assert (row.predicted_return, row.direction, row.last_close, row.features_used) == (0.001, "up", 100.0, 3)
    assert (row.status, row.problem, row.client_bucket) == (200, None, bucket("ann"))
    assert row.latency_ms is not None
    assert row.latency_ms >= 0
    assert bench.counted("blue", 1) == (1, 0, 0)


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (RayTaskError("predict", "Traceback", KeyError("k")), 500, "slot-bug"),
        (BackPressureError(3, 3), 503, "slot-full"),
        (ActorUnavailableError("gone", b"\0" * 16), 503, "slot-unavailable"),
        (problem("no-forecast", 503, "t", "d"), 503, "no-forecast"),
    ],
    ids=["its code failed", "full", "died", "no forecast"],
)
def test_a_slot_that_failed_and_the_one_that_answered_are_both_recorded(
    make: Callable[..., Bench], failure: Any, status: int, kind: str
) -> None:
    bench = make(Handle(predict=failure), Handle(predict=GREEN))
    assert bench.ask() == GREEN
    first, second = bench.recorded()
    assert (first.request_id, first.slot, first.model_version) == ("r", "blue", 1)
    assert (first.status, first.problem, first.predicted_return) == (status, kind, None)
    assert (second.request_id, second.slot, second.predicted_return) == ("r#2", "green", -0.002)
    assert bench.counted("blue", 1) == (1, int(kind != "no-forecast"), 0)
    assert bench.counted("green", 2) == (1, 0, 0)
    (blue,) = (e for e in bench.ingress.outcomes.snapshot()["slots"] if e["slot"] == "blue")
    assert blue["nulls"] == int(kind == "no-forecast")


def test_old_bars_are_recorded_and_count_against_no_model(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=problem("stale-bars", 503, "t", "d")), Handle(predict=GREEN))
    bench.ask()
    (row,) = bench.recorded()
    assert (row.status, row.problem) == (503, "stale-bars")
    assert bench.counted("blue", 1) == (0, 0, 0)


def test_the_callers_mistake_is_no_record_of_the_model(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=problem("unusable-bars", 422, "t", "d")), Handle(predict=GREEN))
    bench.ask()
    assert bench.recorded() == []
    assert bench.counted("blue", 1) == (0, 0, 0)


@pytest.mark.parametrize(
    ("shadow", "disagree"),
    [
        (GREEN, 1),
        (replace(GREEN, predicted_return=0.004), 0),
        (replace(GREEN, predicted_return=None, probability_up=0.4), 1),
        (replace(GREEN, predicted_return=None, probability_up=0.6), 0),
    ],
)
def test_a_shadows_answer_is_recorded_and_paired_by_sign(
    make: Callable[..., Bench], shadow: Answer, disagree: int
) -> None:
    bench = make(Handle(predict=BLUE), Handle(predict=shadow), shadow="green")
    assert bench.ask() == BLUE
    rows = {row.slot: row for row in bench.recorded()}
    assert (rows["blue"].shadow, rows["green"].shadow) == (False, True)
    assert rows["green"].request_id == rows["blue"].request_id == "r"
    assert bench.counted("green", 2) == (1, 0, 1)
    (entry,) = [e for e in bench.ingress.outcomes.snapshot()["slots"] if e["slot"] == "green"]
    assert entry["sign_disagreements"] == disagree


def test_a_store_that_refuses_costs_the_client_nothing(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make(Handle(predict=BLUE), Handle())

    def refuse(self: object, rows: object) -> None:
        raise StoreError("refused")

    monkeypatch.setattr(module.open_store.__globals__["Predictions"], "record", refuse)
    assert bench.ask() == BLUE
    assert bench.ingress._writer.counts.failed == 1
    assert "1 are left out, the last: refused" in caplog.text


def test_a_slot_that_does_not_answer_is_out_and_in_again(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=BLUE), Handle(predict=GREEN, version=2))

    async def work(ingress: Ingress) -> None:
        assert (await ingress.predict(Ask("1", AT)))[0] == "blue"
        bench.handles["blue"].results["predict"] = ActorUnavailableError("gone", b"\0" * 16)
        await until(lambda: "blue" in ingress.unwell)
        assert "no replica can answer" in ingress.unwell["blue"]
        assert (await ingress.predict(Ask("2", AT)))[0] == "green"
        bench.handles["blue"].results["predict"] = EMPTY
        await until(lambda: ingress.unwell["blue"] == "it holds no model")
        bench.handles["blue"].results["predict"] = BLUE
        await until(lambda: not ingress.unwell)
        assert (await ingress.predict(Ask("3", AT)))[0] == "blue"

    bench.within(work)


def test_a_slot_that_is_empty_on_purpose_is_not_unwell(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=BLUE), Handle(predict=EMPTY))

    async def work(ingress: Ingress) -> None:
        await until(lambda: ingress.unwell == {"green": "it holds no model"})
        emptied = Traffic({"blue": WHOLE, "green": 0}, {"blue": 1, "green": None})
        bench.store.traffic.append(emptied, who="test", action="undo")
        await until(lambda: not ingress.unwell)
        assert ingress._misses["green"] == 0

    bench.within(work)


def test_one_missed_look_takes_no_slot_out(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=EMPTY), Handle())

    async def work(ingress: Ingress) -> None:
        assert ingress._misses == {"blue": 0, "green": 0}
        await ingress._probe("blue")
        assert ingress._misses["blue"] == 1
        assert ingress.unwell == {}

    monkeypatched = Ingress._watch
    try:
        Ingress._watch = _idle  # type: ignore[method-assign]
        bench.within(work)
    finally:
        Ingress._watch = monkeypatched  # type: ignore[method-assign]


async def _idle(_: Ingress, slot: str) -> None:
    await asyncio.Event().wait()


def test_the_split_of_the_log_is_in_force_without_a_word(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(Handle(predict=BLUE), Handle(predict=GREEN))
    log = bench.store.traffic

    def append(green: int) -> int:
        traffic = Traffic({"blue": WHOLE - green, "green": green}, {"blue": 1, "green": 2})
        return log.append(traffic, who="test", action="set").seq

    async def work(ingress: Ingress) -> None:
        append(WHOLE)
        await until(lambda: ingress.router.traffic.weights["green"] == WHOLE)
        assert (await ingress.predict(Ask("1", AT)))[0] == "green"
        away = [True]
        current = ingress.store.traffic.current

        def failing() -> Any:
            if away[0]:
                raise StoreError("away")
            return current()

        monkeypatch.setattr(type(ingress.store.traffic), "current", lambda self: failing())
        await asyncio.sleep(0.05)
        assert ingress.router.traffic.weights["green"] == WHOLE  # it stands while the store is away
        monkeypatch.undo()
        newest = append(2_500)
        assert await ingress.refresh() == newest  # at a word at once
        assert ingress.router.traffic.weights["green"] == 2_500
        ingress.check_health()

    bench.within(work)


def test_a_forecast_is_shared_until_there_is_word_of_something_new(make: Callable[..., Bench]) -> None:
    bench = make(Handle(predict=BLUE), Handle(predict=GREEN))

    async def work(ingress: Ingress) -> None:
        newer = replace(BLUE, decision_at=AT + timedelta(minutes=1))
        assert await ingress.latest() is BLUE  # looked at, hence kept
        bench.handles["blue"].results["predict"] = newer
        assert (await ingress.predict(Ask("1", AT)))[1] is BLUE
        assert (await ingress.predict(Ask("2", AT, bars=pl.DataFrame())))[1] is newer
        await ingress.refresh()
        assert (await ingress.predict(Ask("3", AT)))[1] is newer

    monkeypatched = Ingress._watch
    try:
        Ingress._watch = _idle  # type: ignore[method-assign]
        bench.within(work)
    finally:
        Ingress._watch = monkeypatched  # type: ignore[method-assign]


def test_a_slot_that_hangs_holds_up_nothing_of_the_other(make: Callable[..., Bench]) -> None:
    bench = make(Handle(), Handle(predict=GREEN), weights={"blue": 0, "green": WHOLE})
    looks = [0]

    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def look(*_: Any) -> Any:
        looks[0] += 1
        return GREEN

    bench.handles["blue"].predict = SimpleNamespace(remote=hang)  # type: ignore[attr-defined]
    bench.handles["green"].predict = SimpleNamespace(remote=look)  # type: ignore[attr-defined]

    async def work(ingress: Ingress) -> None:
        await until(lambda: looks[0] > 5)
        assert ingress._misses == {"blue": 0, "green": 0}  # blue is still within its time

    bench.within(work)


def test_status_is_that_of_the_slot_that_most_requests_go_to(make: Callable[..., Bench]) -> None:
    blue, green = SlotStatus(None, {"a": 1}, 1), SlotStatus(None, {"a": 2}, 2)
    bench = make(Handle(status=blue), Handle(status=green), weights={"blue": 100, "green": 9_900})

    async def work(ingress: Ingress) -> None:
        assert await ingress.status() == green
        assert await ingress.status("blue") == blue
        bench.handles["green"].results["status"] = RayTaskError("status", "Traceback", KeyError("k"))
        with pytest.raises(ProblemError, match=r"slot green gave no answer: its code failed \(KeyError\)"):
            await ingress.status()
        assert await ingress.versions() == {"blue": 1, "green": 1}
        bench.handles["green"].results["version"] = BackPressureError(1, 1)
        assert (await ingress.versions())["green"] is None

    bench.within(work)


def test_an_ingress_that_no_longer_looks_asks_to_be_replaced(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(Handle(), Handle())

    async def work(ingress: Ingress) -> None:
        ingress.check_health()

        async def broken() -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(ingress, "_take_traffic", broken)
        await until(lambda: any(task.done() for task in ingress._tasks))
        with pytest.raises(RuntimeError, match="does not follow the traffic or the slots any more"):
            ingress.check_health()

    bench.within(work)
