"""A change of the traffic: models load before weights move, and where that fails nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketray.errors import RegistryError, ServingError, SettingsError
from marketray.serving import control as module
from marketray.serving.control import Control
from marketray.serving.store import Store, open_store
from marketray.serving.store.traffic_log import Entry, StaleTrafficError
from marketray.serving.traffic import SLOTS, WHOLE, Traffic
from marketray.settings import Settings, load_settings

Answers = list[tuple[int | None, str | None]]


class Bench:
    """Control over a real store, with slots whose replicas answer a look as they are told."""

    def __init__(self, home: Path) -> None:
        self.settings: Settings = load_settings(None, {"home": str(home), "instrument": "X"})
        self.store: Store = open_store(self.settings.store_uri)
        self.store.traffic.declare(Traffic({"blue": WHOLE, "green": 0}, {"blue": 1, "green": None}), who="t")
        self.looks: list[tuple[str, Traffic]] = []
        self.answers: dict[str, Callable[[int | None, int], Answers]] = dict.fromkeys(SLOTS, _loaded)

    async def ask(self, deployment: str, method: str) -> Answers:
        """Stands for a broadcast to all replicas."""
        assert method == "refresh"
        entry = self.store.traffic.current()
        assert entry is not None
        self.looks.append((deployment, entry.traffic))
        slot = deployment.removeprefix("slot-")
        if slot not in SLOTS:
            return []
        number = sum(name == deployment for name, _ in self.looks)
        return self.answers[slot](entry.traffic.models[slot], number)

    def change(self, **changes: Any) -> Entry:
        async def run() -> Entry:
            control = Control(self.settings, "app")
            control._all = self.ask  # type: ignore[method-assign, assignment]
            control._version = _version  # type: ignore[method-assign, assignment]
            try:
                return await control.change("ann", **changes)
            finally:
                control.__del__()

        return asyncio.run(run())

    @property
    def log(self) -> list[tuple[str, int, int | None]]:
        """Action, weight of green and its model of all changes after the first, oldest first."""
        entries = self.store.traffic.history()[::-1][1:]
        return [(e.action, e.traffic.weights["green"], e.traffic.models["green"]) for e in entries]


def _loaded(wanted: int | None, number: int) -> Answers:
    return [(wanted, None), (wanted, None)]


def _version(which: str | int) -> int:
    known = {"challenger": 2, "2": 2, 2: 2, 3: 3}
    if which not in known:
        raise RegistryError(f"there is no version {which}")
    return known[which]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


HALF = {"blue": 5_000, "green": 5_000}


def test_a_model_is_loaded_before_its_weight_moves(bench: Bench) -> None:
    entry = bench.change(models={"green": "challenger"}, weights=HALF)
    assert (entry.who, entry.action, entry.traffic.weights) == ("ann", "set", HALF)
    assert bench.log == [("load", 0, 2), ("set", 5_000, 2)]
    loading = [traffic for name, traffic in bench.looks if name == "slot-green"]
    assert [t.weights["green"] for t in loading] == [0]
    told = [traffic.weights["green"] for name, traffic in bench.looks if name == "ingress"]
    assert told[-1] == 5_000  # the ingress knows before the change returns


def test_it_waits_for_all_replicas(bench: Bench) -> None:
    def slowly(wanted: int | None, number: int) -> Answers:
        return {1: [], 2: [(None, None), (wanted, None)]}.get(number, _loaded(wanted, number))

    bench.answers["green"] = slowly
    bench.change(models={"green": 2}, weights=HALF)
    green = [traffic.weights["green"] for name, traffic in bench.looks if name == "slot-green"]
    assert green == [0, 0, 0]
    assert bench.log[-1] == ("set", 5_000, 2)


def test_a_model_that_cannot_be_served_changes_nothing(bench: Bench) -> None:
    bench.answers["green"] = lambda wanted, number: [(None, "model 2 is damaged"), (wanted, None)]
    with pytest.raises(ServingError, match="slot green cannot serve version 2: model 2 is damaged"):
        bench.change(models={"green": 2}, weights=HALF)
    assert bench.log == [("load", 0, 2), ("undo", 0, None)]
    assert bench.store.traffic.history()[0].reason.endswith("model 2 is damaged")


def test_a_slot_that_is_never_done_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOAD_SECONDS", 0.05)
    bench.answers["green"] = lambda wanted, number: [(None, None)]
    with pytest.raises(ServingError, match=r"slot green cannot serve version 2: not loaded within 0\.05 s"):
        bench.change(models={"green": 2})
    assert bench.log == [("load", 0, 2), ("undo", 0, None)]


def test_a_process_that_hangs_holds_nothing_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOAD_SECONDS", "_TOLD_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(module, name, 0.05)
    hung: set[str] = set()

    async def hang(deployment: str, method: str) -> Answers:
        hung.add(f"{method} {deployment}")
        await asyncio.sleep(3600)
        return []

    bench.ask = hang  # type: ignore[method-assign]
    assert bench.change(sticky="instrument").traffic.sticky == "instrument"
    with pytest.raises(ServingError, match=r"slot green cannot serve version 2: not loaded within 0\.05 s"):
        bench.change(models={"green": 2})
    assert hung == {"refresh ingress", "refresh slot-green"}


def test_a_caller_that_does_not_wait_changes_nothing(bench: Bench) -> None:
    def gone(wanted: int | None, number: int) -> Answers:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return [(None, None)]

    bench.answers["green"] = gone
    with pytest.raises(asyncio.CancelledError):
        bench.change(models={"green": 2}, weights=HALF)
    assert bench.log == [("load", 0, 2), ("undo", 0, None)]


def test_a_control_that_starts_takes_back_what_one_that_died_was_loading(bench: Bench) -> None:
    before = bench.store.traffic.current()
    assert before is not None
    loading = before.traffic.changed(models={"blue": 1, "green": 2})

    async def start() -> None:
        control = Control(bench.settings, "app")
        control._all = bench.ask  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(30):
            while not control._resumed:
                await asyncio.sleep(0.01)
        control.__del__()

    asyncio.run(start())
    assert bench.log == []  # nothing was under way
    bench.store.traffic.append(loading, who="ann", action="load")
    asyncio.run(start())
    assert bench.log == [("load", 0, 2), ("undo", 0, None)]
    newest = bench.store.traffic.current()
    assert newest is not None
    assert (newest.who, newest.reason) == ("ann", "control ended while the slots loaded")
    asyncio.run(start())
    assert len(bench.log) == 2


def test_what_somebody_else_has_set_meanwhile_stays(bench: Bench) -> None:
    theirs = Traffic({"blue": WHOLE, "green": 0}, {"blue": 3, "green": None})

    def interrupted(wanted: int | None, number: int) -> Answers:
        bench.store.traffic.append(theirs, who="bob", action="set")
        return [(wanted, None)]

    bench.answers["green"] = interrupted
    with pytest.raises(StaleTrafficError, match=r"the newest change of the traffic is 3 \(set by bob"):
        bench.change(models={"green": 2}, weights=HALF)
    entry = bench.store.traffic.current()
    assert entry is not None
    assert entry.traffic == theirs


def test_a_slot_empties_when_it_has_no_weight(bench: Bench) -> None:
    bench.change(models={"green": 2}, weights=HALF)
    with pytest.raises(SettingsError, match="green is empty and has weight 5000"):
        bench.change(models={"green": None})
    entry = bench.change(models={"green": None}, weights={"blue": WHOLE, "green": 0})
    assert entry.traffic.models == {"blue": 1, "green": None}
    assert [action for action, _, _ in bench.log] == ["load", "set", "set"]


def test_models_without_weights_and_shadow(bench: Bench) -> None:
    entry = bench.change(models={"green": 2})
    assert (entry.traffic.weights["green"], entry.traffic.models["green"]) == (0, 2)
    entry = bench.change(shadow="green", sticky="instrument")
    assert (entry.traffic.shadow, entry.traffic.sticky) == ("green", "instrument")
    assert bench.change(shadow=None).traffic.shadow is None


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"models": {"green": "9"}}, RegistryError, "there is no version 9"),
        ({"weights": {"blue": 9_000, "green": 0}}, SettingsError, "weights sum to 9000"),
        ({"shadow": "green"}, SettingsError, "the shadow green is empty"),
    ],
)
def test_what_is_no_traffic_is_refused_before_anything_is_written(
    bench: Bench, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        bench.change(**changes)
    assert bench.log == []
