"""Rollouts: one at a time, saved by whoever read them last, with a record of each decision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from marketray.serving.rollouts.rollout import Decision, Plan, Rollout, cancel, start
from marketray.serving.store import Store
from marketray.serving.store.rollouts import RolloutActiveError, StaleRolloutError
from marketray.serving.store.traffic_log import StaleTrafficError
from marketray.settings_serving import RolloutSettings
from tests.serving.store.programs import split
from tests.serving.store.rows import START

LATER = START + timedelta(minutes=1)


def begun(version: int = 3) -> Rollout:
    return start(Plan("green", version, RolloutSettings()), split(0), START)


def held(rollout: Rollout) -> Decision:
    return Decision("hold", "waits", {}, replace(rollout, reason="waits"))


def advanced(rollout: Rollout) -> Decision:
    after = replace(rollout, phase="step", step=rollout.step + 1, entered_at=LATER, reason="passed")
    return Decision("advance", "passed at 0 %", {"requests": 120}, after)


def test_a_rollout_is_found_again_as_it_was_saved(store: Store) -> None:
    assert (store.rollouts.active(), store.rollouts.history()) == (None, [])
    first = store.rollouts.start(begun(), who="ann")
    assert (first.id, first.revision, first.who, first.rollout) == (1, 0, "ann", begun())
    assert store.rollouts.active() == first
    second = store.rollouts.save(first, held(first.rollout), START)
    third = store.rollouts.save(second, advanced(second.rollout), LATER)
    assert store.rollouts.active() == third
    assert (third.revision, third.rollout.step, third.rollout.phase) == (2, 0, "step")
    (made,) = store.rollouts.decisions(1)
    assert (made.at, made.kind, made.step, made.numbers) == (LATER, "advance", 0, {"requests": 120})
    ended = store.rollouts.save(third, cancel(third.rollout, LATER, "enough"), LATER)
    assert store.rollouts.active() is None
    assert [d.kind for d in store.rollouts.decisions(1)] == ["cancel", "advance"]
    assert [d.kind for d in store.rollouts.decisions(1, limit=1)] == ["cancel"]
    next_one = store.rollouts.start(begun(4), who="bob")
    assert store.rollouts.history() == [next_one, ended]
    assert store.rollouts.history(limit=1) == [next_one]


def test_of_several_that_start_at_once_one_runs(store: Store) -> None:
    def begin(version: int) -> bool:
        try:
            store.rollouts.start(begun(version), who="ann")
        except RolloutActiveError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(begin, range(3, 11)))
    active = store.rollouts.active()
    assert active is not None
    assert [v for v, ok in zip(range(3, 11), won, strict=True) if ok] == [active.rollout.plan.version]
    message = rf"rollout 1 of version {active.rollout.plan.version} \(by ann\) is running; required: none"
    with pytest.raises(RolloutActiveError, match=message):
        store.rollouts.start(begun(), who="bob")


def test_of_two_that_decide_on_one_state_the_first_counts(store: Store) -> None:
    stored = store.rollouts.start(begun(), who="ann")
    store.rollouts.save(stored, advanced(stored.rollout), LATER)
    with pytest.raises(StaleRolloutError, match="rollout 1 has been saved since its revision 0 was read"):
        store.rollouts.save(stored, cancel(stored.rollout, LATER, "late"), LATER)
    assert [d.kind for d in store.rollouts.decisions(1)] == ["advance"]


def test_a_step_and_its_traffic_are_saved_together_or_not_at_all(store: Store) -> None:
    stored = store.rollouts.start(begun(), who="ann")
    store.traffic.append(split(0), who="ann", action="set")
    decision = advanced(stored.rollout)

    def advance(expect_seq: int) -> None:
        with store.database.writing("a step of the rollout"):
            store.rollouts.save(stored, decision, LATER)
            store.traffic.append(
                decision.rollout.traffic, who="rollout", action="advance", expect_seq=expect_seq
            )

    with pytest.raises(StaleTrafficError, match="expect_seq=0"):
        advance(0)
    assert store.rollouts.active() == stored
    assert store.rollouts.decisions(1) == []
    advance(1)
    assert [e.traffic for e in store.traffic.history(1)] == [decision.rollout.traffic]
    assert [d.kind for d in store.rollouts.decisions(1)] == ["advance"]
