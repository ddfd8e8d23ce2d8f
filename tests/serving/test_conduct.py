"""The conductor on a real store, with counted outcomes and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marketray.serving.rollouts.conduct import Conductor, Snapshots
from marketray.serving.rollouts.journal import Journal, rollout_json, traffic_json
from marketray.serving.rollouts.outcomes import Outcomes
from marketray.serving.rollouts.rollout import Decision, Plan, start
from marketray.serving.store import Store, open_store
from marketray.serving.store.predictions import PredictionRow, Settlement
from marketray.serving.store.rollouts import RolloutActiveError
from marketray.serving.traffic import Traffic
from marketray.settings import Settings, load_settings
from marketray.settings_serving import RolloutSettings

NOW = datetime(2024, 1, 2, 15, 0, tzinfo=UTC)
BEFORE = Traffic({"blue": 10_000, "green": 0}, {"blue": 3, "green": None})
RULES = RolloutSettings(
    steps=(10, 100), hold_seconds=5, shadow_seconds=2, min_requests=20, shadow_min_pairs=10
)


@dataclass
class Scene:
    """A service that is asked ten times a look: its counters, its clock, and what it was told."""

    store: Store
    replicas: list[Outcomes] = field(default_factory=lambda: [Outcomes("a"), Outcomes("b")])
    now: datetime = NOW
    unwell: dict[str, str] = field(default_factory=dict)
    deaf: bool = False
    told: int = 0
    bad: Callable[[Outcomes], None] | None = None
    settings: Settings = field(
        default_factory=lambda: load_settings(
            overrides={"labels": {"horizon_minutes": 1, "label_tolerance_minutes": 0}}
        )
    )

    def conductor(self) -> Conductor:
        journal = Journal(self.store.database)
        return Conductor(self.settings, journal, self.store.scores, self.observe, self.tell, lambda: self.now)

    async def observe(self) -> Snapshots:
        return [] if self.deaf else [{**r.snapshot(), "unwell": self.unwell} for r in self.replicas]

    async def tell(self) -> None:
        self.told += 1

    def begin(self, rules: RolloutSettings = RULES) -> int:
        self.store.traffic.declare(BEFORE, who="test")
        rollout = start(Plan("green", 4, rules), BEFORE, self.now)
        return Journal(self.store.database).start(rollout, who="ann", seq=1).id

    async def look(self, conductor: Conductor, seconds: float = 0.25) -> Decision | None:
        """A moment in which each replica answers five requests, by the split in force, then a look."""
        self.now += timedelta(seconds=seconds)
        current = self.store.traffic.current()
        assert current is not None
        for replica in self.replicas:
            for _ in range(5):
                replica.answered("blue", 3, 2.0)
                if current.traffic.models["green"] == 4:
                    (self.bad or good)(replica)
        return await conductor.look()


def good(replica: Outcomes) -> None:
    replica.answered("green", 4, 2.0)
    replica.paired("green", 4, 1e-4, 2e-4)


def opposed(replica: Outcomes) -> None:
    replica.answered("green", 4, 2.0)
    for _ in range(10):
        replica.paired("green", 4, -1e-4, 1e-4)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(open_store(f"sqlite:///{tmp_path}/serving.db"))


def run(work: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await work

    return asyncio.run(whole())


def kinds(scene: Scene) -> list[str]:
    return [d.kind for d in reversed(scene.store.rollouts.decisions(1))]


def test_a_good_model_takes_over_and_everybody_hears_of_it(scene: Scene) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        assert await conductor.look() is None  # nothing runs yet
        scene.begin()
        while scene.store.rollouts.active() is not None:
            await scene.look(conductor)
            assert scene.now < NOW + timedelta(seconds=20)
        assert await conductor.look() is None

    run(whole())
    assert kinds(scene) == ["advance", "advance", "finish"]
    assert NOW + timedelta(seconds=12) <= scene.now <= NOW + timedelta(seconds=13)  # 2 + 5 + 5 s
    entries = scene.store.traffic.history()
    assert [(e.action, e.traffic.weights["green"], e.traffic.shadow) for e in reversed(entries)] == [
        ("declare", 0, None),
        ("rollout", 0, "green"),
        ("advance", 1_000, "green"),
        ("advance", 10_000, "blue"),
        ("finish", 10_000, None),
    ]
    assert {e.who for e in entries[:3]} == {"rollout 1"}
    events = scene.store.events.after(0)
    assert [(e.kind, e.key) for e in events if e.kind == "traffic"] == [
        ("traffic", str(n)) for n in range(2, 6)
    ]
    told = [e.payload for e in events if e.kind == "rollout"]
    assert [(p["phase"], p["step"], len(p["decisions"])) for p in told] == [
        ("shadow", -1, 0),
        ("step", 0, 1),
        ("step", 1, 2),
        ("done", 1, 3),
    ]
    assert scene.told == 3


def test_holds_are_saved_once_a_second_and_told_nobody(scene: Scene) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin(RULES.model_copy(update={"shadow_seconds": 60.0}))
        for _ in range(16):  # four seconds
            decision = await scene.look(conductor)
            assert decision is not None
            assert decision.kind == "hold"

    run(whole())
    active = scene.store.rollouts.active()
    assert active is not None
    assert active.rollout.reason.startswith(("3 of 60 s", "4 of 60 s"))
    assert 3 <= active.revision <= 5
    assert scene.told == 0
    assert len(scene.store.traffic.history()) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda o: o.failed("green", 4, 2.0), "requests failed"),
        (lambda o: o.answered("green", 4, 2.0, null=True), "answers held no forecast"),
        (lambda o: o.answered("green", 4, 900.0), "answers took over 10 ms"),
        (opposed, "another way"),
    ],
)
@pytest.mark.parametrize("phase", ["shadow", "step"])
def test_a_bad_model_is_out_with_the_next_look(
    scene: Scene, bad: Callable[[Outcomes], None], reason: str, phase: str
) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin(RULES.model_copy(update={"hold_seconds": 60.0}))
        for _ in range(4 if phase == "shadow" else 20):
            await scene.look(conductor)
        active = scene.store.rollouts.active()
        assert active is not None
        assert active.rollout.phase == phase
        scene.bad, turned = bad, scene.now
        while scene.store.rollouts.active() is not None:
            await scene.look(conductor)
            assert scene.now - turned <= timedelta(seconds=2), scene.store.rollouts.active()

    run(whole())
    (ended,) = scene.store.rollouts.history()
    assert ended.rollout.phase == "broken"
    assert reason in ended.rollout.reason
    current = scene.store.traffic.current()
    assert current is not None
    assert (current.traffic, current.action, current.who) == (BEFORE, "break", "rollout 1")


def test_errors_of_an_earlier_rollout_count_for_nothing(scene: Scene) -> None:
    for _ in range(50):
        scene.replicas[0].failed("green", 4, 2.0)

    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin()
        while scene.store.rollouts.active() is not None:
            await scene.look(conductor)

    run(whole())
    assert kinds(scene)[-1] == "finish"


def test_another_conductor_goes_on_where_the_first_one_died(scene: Scene) -> None:
    """It holds no counts, so the step is judged by what comes from now on; the time of the step stands."""

    async def whole() -> None:
        scene.begin()
        first = scene.conductor()
        for _ in range(10):
            await scene.look(first)
        assert kinds(scene) == ["advance"]
        scene.now += timedelta(seconds=60)
        second = scene.conductor()
        decision = await scene.look(second)
        assert decision is not None
        assert (decision.kind, decision.reason) == ("hold", "0 of 20 requests")
        for _ in range(2):
            decision = await scene.look(second)
        assert decision is not None
        assert decision.kind == "advance"
        third = scene.conductor()  # beside the second: whoever writes first, the traffic moves once
        while scene.store.rollouts.active() is not None:
            await asyncio.gather(scene.look(second), scene.look(third))

    run(whole())
    assert kinds(scene) == ["advance", "advance", "finish"]


def test_a_dead_slot_ends_the_rollout_after_a_second(scene: Scene) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin()
        await scene.look(conductor)
        scene.unwell = {"green": "no replica can answer"}
        for _ in range(3):
            decision = await scene.look(conductor)
            assert decision is not None
            assert decision.kind == "hold"
        scene.unwell = {}
        await scene.look(conductor)
        scene.unwell = {"green": "no replica can answer"}
        died = scene.now
        while scene.store.rollouts.active() is not None:
            await scene.look(conductor)
        assert scene.now - died <= timedelta(seconds=1.5)

    run(whole())
    (ended,) = scene.store.rollouts.history()
    assert ended.rollout.reason == "slot green does not answer: no replica can answer"


@pytest.mark.parametrize("seconds", [3.0, 6.0])
def test_a_slot_that_was_unwell_while_it_loaded_has_a_moment(scene: Scene, seconds: float) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin()
        scene.unwell = {"green": "it holds no model"}
        while scene.now < NOW + timedelta(seconds=seconds):
            await scene.look(conductor)
        assert scene.store.rollouts.decisions(1)[1:] == []
        scene.unwell = {}
        await scene.look(conductor)

    run(whole())
    assert kinds(scene) == (["advance"] if seconds < 5 else ["break"])  # 2 s of shadow have passed


def test_nothing_is_decided_unseen(scene: Scene) -> None:
    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin()
        scene.deaf = True
        for _ in range(40):
            assert await scene.look(conductor) is None

    run(whole())
    active = scene.store.rollouts.active()
    assert active is not None
    assert active.revision == 0


def test_who_changes_the_traffic_by_hand_ends_the_rollout(scene: Scene) -> None:
    async def whole() -> Decision | None:
        conductor = scene.conductor()
        scene.begin()
        await scene.look(conductor)
        scene.store.traffic.append(by_hand, who="bob", action="declare")
        return await scene.look(conductor)

    by_hand = BEFORE.changed(models={"blue": 5, "green": None})
    decision = run(whole())
    assert (decision.kind, decision.reason) == ("cancel", "bob changed the traffic (declare)")
    current = scene.store.traffic.current()
    assert current is not None
    assert current.traffic == by_hand
    assert scene.store.rollouts.active() is None


def test_a_larger_loss_ends_it(scene: Scene) -> None:
    """On each of 400 labels since the start the new model is wrong by far; on those before it was right."""
    rows = []
    for minute in range(-100, 400):
        at = NOW + timedelta(minutes=minute + 1)
        for slot, version, predicted in (("blue", 3, 0.0), ("green", 4, 0.01 if minute >= 0 else 1e-3)):
            row = PredictionRow(
                request_id=str(minute),
                slot=slot,
                shadow=slot == "green",
                model_version=version,
                predicted_return=predicted,
                decision_at=at,
                target_at=at + timedelta(minutes=1),
                at=at,
                instrument=scene.settings.instrument,
            )
            rows.append(row)
    scene.store.predictions.record(rows)
    due = scene.store.predictions.due(NOW + timedelta(days=1))
    scene.store.predictions.settle(Settlement(p.id, 1e-3) for p in due)

    async def whole() -> None:
        conductor = scene.conductor()
        scene.begin(RULES.model_copy(update={"shadow_seconds": 1e6}))
        for _ in range(100):
            await scene.look(conductor, seconds=15)
            await asyncio.sleep(0.1)  # the comparison runs beside
            if scene.store.rollouts.active() is None:
                return

    run(whole())
    (ended,) = scene.store.rollouts.history()
    assert ended.rollout.phase == "broken"
    assert "larger loss than the old model" in ended.rollout.reason
    (decision,) = scene.store.rollouts.decisions(1)
    assert decision.numbers["evidence"]["verdict"] == "worse"
    assert decision.numbers["evidence"]["pairs"] == 400


def test_one_rollout_at_a_time_and_no_change_beside_it(scene: Scene) -> None:
    journal = Journal(scene.store.database)
    journal.require_no_rollout()
    scene.begin()
    with pytest.raises(RolloutActiveError, match=r"rollout 1 \(by ann\) moves the traffic; required: none"):
        journal.require_no_rollout()
    with pytest.raises(RolloutActiveError, match="rollout 1 of version 4"):
        journal.start(start(Plan("green", 4, RULES), BEFORE, NOW), who="bob", seq=2)
    assert len(scene.store.traffic.history()) == 2  # of the second one nothing is left
    assert len(scene.store.events.after(0)) == 2


def test_shown(scene: Scene) -> None:
    scene.begin()
    stored = scene.store.rollouts.active()
    assert stored is not None
    assert rollout_json(stored) == {
        "id": 1,
        "phase": "shadow",
        "slot": "green",
        "version": 4,
        "step": -1,
        "steps": [10.0, 100.0],
        "started_at": "2024-01-02T15:00:00+00:00",
        "entered_at": "2024-01-02T15:00:00+00:00",
        "ended_at": None,
        "who": "ann",
        "reason": "answers unseen",
    }
    entry = scene.store.traffic.current()
    assert entry is not None
    shown = traffic_json(entry)
    assert shown["weights"] == {"blue": 100.0, "green": 0.0}
    assert (shown["models"], shown["shadow"]) == ({"blue": 3, "green": 4}, "green")
    assert (shown["seq"], shown["who"], shown["action"]) == (2, "ann", "rollout")
