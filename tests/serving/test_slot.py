"""A slot follows the traffic log: what it loads, what it keeps where that fails, and what it says of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import ModelError, RegistryError, StoreError
from marketray.serving import slot as module
from marketray.serving.answers import Answer
from marketray.serving.live import LiveModel
from marketray.serving.schemas import Problem
from marketray.serving.slot import Slot
from marketray.serving.store.database import Database
from marketray.serving.store.live_bars import LiveBars
from marketray.serving.store.traffic_log import TrafficLog
from marketray.serving.traffic import WHOLE, Traffic
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market, write_card

MINUTE = timedelta(minutes=1)


@dataclass
class Bench:
    """A blue slot over a registry of folders; `hold` makes fetching wait, `errors` fail."""

    settings: Settings
    folders: dict[int, Path]
    errors: dict[int, Exception] = field(default_factory=dict)
    fetched: list[int] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()
        self.database = Database(self.settings.store_uri)
        self.database.create()
        self.log = TrafficLog(self.database)

    def want(self, version: int | None) -> None:
        """Put the version into blue; green has all weight, so that blue may be empty."""
        traffic = Traffic({"blue": 0, "green": WHOLE}, {"blue": version, "green": 99})
        self.log.append(traffic, who="test", action="set")

    def fetch(self, version: int) -> Path:
        self.fetched.append(version)
        assert self.hold.wait(30)
        if version in self.errors:
            raise self.errors[version]
        return self.folders[version]

    def slot(self) -> Slot:
        return Slot("blue", self.settings, self.fetch)


@pytest.fixture
def bench(settings: Settings, market: Market) -> Bench:
    return Bench(settings, {1: market.folders["xgboost"], 2: market.folders["ar"]})


@pytest.fixture(autouse=True)
def retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.05)


def refresh(slot: Slot) -> tuple[int | None, str | None]:
    return asyncio.run(slot.refresh())


def answered_by(slot: Slot) -> int | str:
    """Version of the answer, or the kind of problem."""
    found = asyncio.run(slot.predict(None, None))
    return found.identity.model_version if isinstance(found, Answer) else found.kind


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slot_has_its_version_when_it_is_made_and_empties(bench: Bench) -> None:
    slot = bench.slot()
    assert refresh(slot) == (None, None)
    assert answered_by(slot) == "no-model"
    status = asyncio.run(slot.status())
    assert (status.version, status.info) == (None, None)
    assert status.problem is not None
    assert status.problem.detail == "slot blue is empty"
    bench.want(1)
    started = bench.slot()
    assert answered_by(started) == 1
    assert asyncio.run(started.version()) == 1
    until(lambda: answered_by(slot) == 1)  # also without a word
    bench.want(None)
    assert refresh(started) == (None, None)
    assert answered_by(started) == "no-model"


def test_the_version_before_answers_while_the_next_one_loads(bench: Bench) -> None:
    bench.want(1)
    slot = bench.slot()
    bench.hold.clear()
    bench.want(2)
    until(lambda: bench.fetched == [1, 2])
    assert answered_by(slot) == 1
    status = asyncio.run(slot.status())
    assert (status.version, status.problem) == (1, None)
    bench.hold.set()
    assert refresh(slot) == (2, None)
    assert answered_by(slot) == 2


def test_the_version_before_answers_where_the_next_one_is_unusable(bench: Bench) -> None:
    bench.want(1)
    slot = bench.slot()
    bench.errors[2] = ModelError("model 2 is damaged", hint="take another")
    bench.want(2)
    assert refresh(slot) == (1, "model 2 is damaged")
    assert answered_by(slot) == 1
    assert asyncio.run(slot.status()).problem is None  # it can answer
    refresh(slot)
    assert bench.fetched == [1, 2]  # it does not mend by itself
    bench.want(1)
    assert refresh(slot) == (1, None)
    bench.want(2)
    assert refresh(slot) == (1, "model 2 is damaged")  # wanted anew, tried anew
    assert bench.fetched == [1, 2, 2]


def test_a_slot_without_a_version_before_says_what_is_wrong(bench: Bench) -> None:
    bench.errors[2] = ModelError("model 2 is damaged", hint="take another")
    bench.want(2)
    slot = bench.slot()
    assert answered_by(slot) == "no-model"
    status = asyncio.run(slot.status())
    assert status.problem is not None
    assert status.problem.detail == "slot blue cannot serve version 2: model 2 is damaged"
    assert status.problem.hint == "take another"
    bench.want(None)
    refresh(slot)
    found = asyncio.run(slot.predict(None, None))
    assert isinstance(found, Problem)
    assert found.detail == "slot blue is empty"


def test_a_registry_that_comes_back_is_asked_again(bench: Bench) -> None:
    bench.want(1)
    slot = bench.slot()
    bench.errors[2] = RegistryError("the tracking server does not answer")
    bench.want(2)
    assert refresh(slot) == (1, "the tracking server does not answer")
    del bench.errors[2]
    until(lambda: answered_by(slot) == 2)
    assert refresh(slot) == (2, None)


def test_a_version_that_waits_for_its_next_try_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 3600.0)
    bench.errors[2] = RegistryError("there is no version 2")  # it was deleted from the registry
    bench.want(2)
    slot = bench.slot()
    assert refresh(slot) == (None, "there is no version 2")
    bench.want(1)
    assert refresh(slot) == (1, None)


def test_a_version_that_vanished_from_the_registry_goes_on_answering(bench: Bench) -> None:
    bench.want(1)
    slot = bench.slot()
    bench.errors[1] = RegistryError("there is no version 1")
    assert refresh(slot) == (1, None)
    assert answered_by(slot) == 1
    assert refresh(bench.slot()) == (None, "there is no version 1")  # a replica that starts cannot have it


def test_a_model_without_a_forecast_does_not_replace_one_that_has_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = LiveModel.latest

    def latest(self: LiveModel) -> Answer | Problem:
        if self.identity.model_version != 2:
            return answer(self)
        return module.problem("no-forecast", 503, "The model has no forecast", "the model answered nan")

    monkeypatch.setattr(LiveModel, "latest", latest)
    bench.want(1)
    slot = bench.slot()
    bench.want(2)
    assert refresh(slot) == (1, "the model answered nan")
    assert answered_by(slot) == 1
    monkeypatch.undo()
    until(lambda: answered_by(slot) == 2)
    monkeypatch.setattr(LiveModel, "latest", latest)
    empty = bench.slot()  # where none was before, it stands, and the slot says that it has no forecast
    assert refresh(empty) == (2, "the model answered nan")


def test_refresh_waits_for_a_look_that_began_after_it_was_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.want(1)
    slot = bench.slot()
    current, reading, go_on = bench.log.current, threading.Event(), threading.Event()

    def slow() -> object:
        found = current()
        reading.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(slot._log, "current", slow)
    assert reading.wait(30)  # a look has read the log
    bench.want(2)
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(refresh(slot)))
    asking.start()
    go_on.set()
    asking.join(30)
    assert found == [(2, None)]


def test_live_bars_move_the_forecast(bench: Bench, market: Market) -> None:
    bench.want(1)
    slot = bench.slot()
    last = market.bars.drop("outlier").tail(1)
    nxt = last.with_columns(pl.col("time") + MINUTE)
    refused = asyncio.run(slot.refusals([*last.to_dicts(), *nxt.to_dicts()]))
    assert isinstance(refused, list)
    assert [None if r is None else r.reason for r in refused] == ["duplicate", None]
    LiveBars(bench.database).append(INSTRUMENT, nxt)
    refresh(slot)
    found = asyncio.run(slot.predict(INSTRUMENT, None))
    assert isinstance(found, Answer)
    assert found.decision_at == nxt["time"][0] + MINUTE


def test_an_unreachable_store_leaves_what_is_loaded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.want(1)
    slot = bench.slot()

    def away() -> None:
        raise StoreError("away")

    monkeypatch.setattr(slot._log, "current", away)
    assert refresh(slot) == (1, None)
    slot.check_health()
    file = bench.settings.home_path / "file"
    file.touch()
    there = bench.settings.serving.model_copy(update={"store_uri": f"sqlite:///{file}/serving.db"})
    with pytest.raises(StoreError, match="its folder cannot be made"):  # Serve starts the replica again
        Slot("blue", bench.settings.model_copy(update={"serving": there}), bench.fetch)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_slot_whose_thread_ended_asks_to_be_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.want(1)
    slot = bench.slot()
    slot.check_health()

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(slot._log, "current", broken)
    slot._thread.join(30)
    with pytest.raises(RuntimeError, match="slot blue does not follow the traffic log any more"):
        slot.check_health()
    assert answered_by(slot) == 1


def test_a_slot_that_is_dropped_ends_its_thread(bench: Bench) -> None:
    slot = bench.slot()
    thread = slot._thread
    del slot
    thread.join(30)
    assert not thread.is_alive()


def test_another_catalog_is_no_usable_model(bench: Bench, market: Market, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(market.folders["xgboost"], folder)
    write_card(folder, ["a"], "another")
    bench.folders[3] = folder
    bench.want(3)
    version, why = refresh(bench.slot())
    assert version is None
    assert why is not None
    assert "the model was trained on another; required: equal" in why
