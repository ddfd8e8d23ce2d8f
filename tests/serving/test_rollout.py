"""Rollouts: good models get all traffic, bad ones are taken out, and a restart changes no decision."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.errors import SettingsError, TrafficError
from marketray.serving.rollouts.gates import SlotWindows
from marketray.serving.rollouts.outcomes import Window
from marketray.serving.rollouts.rollout import Decision, Plan, Rollout, break_off, cancel, decide, start
from marketray.serving.rollouts.sequential import Evidence, compare_losses
from marketray.serving.traffic import Traffic
from marketray.settings_serving import RolloutSettings
from tests.serving.test_gates import window

NOW = datetime(2024, 1, 2, 15, 0, tzinfo=UTC)
BEFORE = Traffic({"blue": 10_000, "green": 0}, {"blue": 3, "green": None})
PLAN = Plan("green", 4, RolloutSettings())
GOOD = SlotWindows(window(200), window(200))
NOTHING = SlotWindows(Window(), Window())


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def step_of(rollout: Rollout, seen: SlotWindows, seconds: float, **more: Any) -> Decision:
    given = {"recent": NOTHING, "evidence": None, **more}
    return decide(rollout, step=seen, now=rollout.entered_at + timedelta(seconds=seconds), **given)


def on_step(index: int) -> Rollout:
    rollout = start(PLAN, BEFORE, NOW)
    for _ in range(index + 1):
        rollout = step_of(rollout, GOOD, 1_000).rollout
    assert rollout.step == index
    return rollout


def losses(advantage: float) -> Evidence:
    gain = advantage + np.resize([1.0, -0.5], 400)
    at = np.arange(400, dtype=np.int64) * 60_000_000
    return compare_losses(-gain, np.zeros(400), at, 1)


def test_a_good_model_reaches_all_traffic() -> None:
    rollout, seen = start(PLAN, BEFORE, NOW), []
    while rollout.running:
        decision = step_of(rollout, GOOD, 1_000)
        rollout = decision.rollout
        traffic = rollout.traffic
        seen.append((decision.kind, rollout.phase, traffic.weights["green"], traffic.shadow))
    assert seen == [
        ("advance", "step", 100, "green"),
        ("advance", "step", 500, "green"),
        ("advance", "step", 2_500, "green"),
        ("advance", "step", 5_000, "green"),
        ("advance", "step", 10_000, "blue"),
        ("finish", "done", 10_000, None),
    ]
    assert rollout.traffic.models == {"blue": 3, "green": 4}
    assert rollout.ended_at == after(6_000)
    assert rollout.reason == "version 4 has taken over"


def test_it_begins_unseen() -> None:
    traffic = start(PLAN, BEFORE, NOW).traffic
    assert (traffic.weights, traffic.shadow) == (BEFORE.weights, "green")
    assert traffic.models == {"blue": 3, "green": 4}


def test_the_shadow_waits_for_time_and_answers() -> None:
    rollout = start(PLAN, BEFORE, NOW)
    few = SlotWindows(window(20), window(20))
    early = step_of(rollout, few, 12)
    assert (early.kind, early.rollout.traffic) == ("hold", rollout.traffic)
    assert early.reason == early.rollout.reason == "12 of 60 s; 20 of 50 answers beside the old model's"
    assert step_of(rollout, few, 60).reason == "20 of 50 answers beside the old model's"
    assert step_of(rollout, SlotWindows(window(50), window(50)), 60).kind == "advance"


def test_a_step_waits_while_traffic_is_too_thin_or_not_clean() -> None:
    rollout = on_step(1)
    assert step_of(rollout, SlotWindows(window(99), window(50)), 300).reason == "99 of 100 requests"
    assert step_of(rollout, GOOD, 299).reason == "299 of 300 s"
    unclean = step_of(rollout, SlotWindows(window(150, errors=2), window(50)), 300)
    assert (unclean.kind, unclean.reason) == ("hold", "2 of 150 requests failed; allowed 1 %")
    assert step_of(rollout, SlotWindows(window(200, errors=2), window(50)), 300).kind == "advance"


@pytest.mark.parametrize("index", [-1, 0, 2, 4])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (window(3, errors=3), "3 of 3 requests failed; allowed 1 %, surely more than"),
        (window(4, nulls=3), "3 of 4 answers held no forecast"),
        (window(3, slow=3), "3 of 3 answers took over 250 ms"),
        (window(30, opposed=30), "30 of 30 forecasts point another way"),
    ],
)
@pytest.mark.parametrize("where", ["recent", "step"])
def test_a_bad_model_is_taken_out_at_once(index: int, bad: Window, reason: str, where: str) -> None:
    rollout = on_step(index)
    seen = {"recent": NOTHING, "step": GOOD, where: SlotWindows(bad, window(3))}
    decision = decide(rollout, **seen, evidence=None, now=rollout.entered_at + timedelta(seconds=0.5))
    assert decision.kind == "break"
    assert decision.reason.startswith(reason)
    assert decision.rollout.phase == "broken"
    assert decision.rollout.traffic == BEFORE
    assert decision.rollout.ended_at == rollout.entered_at + timedelta(seconds=0.5)
    assert decision.numbers[where]["new"]["requests"] == bad.requests


def test_a_larger_loss_breaks_and_a_smaller_one_does_not() -> None:
    rollout = on_step(2)
    worse = step_of(rollout, GOOD, 1_000, evidence=losses(-1.0))
    assert worse.kind == "break"
    assert worse.reason.startswith("larger loss than the old model: p = ")
    assert worse.reason.endswith("mean difference 0.75 over 400 decisions")
    assert worse.numbers["evidence"]["verdict"] == "worse"
    for evidence in (losses(1.0), compare_losses([], [], [], 30)):
        assert step_of(rollout, GOOD, 1_000, evidence=evidence).kind == "advance"


def test_a_rollout_by_hand_goes_on_from_where_it_is() -> None:
    current = Traffic({"blue": 9_000, "green": 1_000}, {"blue": 3, "green": 4}, sticky="instrument")
    rollout = start(PLAN, current, NOW)
    assert rollout.traffic.weights == current.weights
    following = step_of(rollout, GOOD, 1_000).rollout
    assert following.traffic == current.changed(weights={"blue": 7_500, "green": 2_500}, shadow="green")
    assert break_off(following, NOW, "green has died", {}).rollout.traffic == current


def test_blue_takes_over_from_green() -> None:
    current = Traffic({"blue": 0, "green": 10_000}, {"blue": 3, "green": 4})
    rollout = start(Plan("blue", 5, RolloutSettings(steps=(12.5, 100))), current, NOW)
    rollout = step_of(rollout, GOOD, 1_000).rollout
    assert rollout.traffic.weights == {"blue": 1_250, "green": 8_750}
    assert rollout.traffic.models == {"blue": 5, "green": 4}


def test_somebody_may_cancel_it() -> None:
    decision = cancel(on_step(3), after(9_000), "cancelled by ada")
    assert (decision.kind, decision.rollout.phase, decision.reason) == (
        "cancel",
        "cancelled",
        "cancelled by ada",
    )
    assert decision.rollout.traffic == BEFORE
    for act in (lambda r: cancel(r, NOW, "again"), lambda r: break_off(r, NOW, "", {})):
        with pytest.raises(
            TrafficError, match="rollout of version 4: it is cancelled; required: a running one"
        ):
            act(decision.rollout)
    with pytest.raises(TrafficError, match="it is cancelled; required: a running one"):
        step_of(decision.rollout, GOOD, 1)


sides = st.builds(
    lambda n, errors, slow: SlotWindows(window(n, errors=min(n, errors), slow=min(n, slow)), window(n)),
    st.integers(0, 150),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(sides, st.integers(1, 400)), max_size=12))
def test_a_restart_changes_no_decision(course: list[tuple[SlotWindows, int]]) -> None:
    """After each decision the state goes through JSON; a weight never falls but back to the baseline."""
    rollout = resumed = start(PLAN, BEFORE, NOW)
    now = NOW
    for seen, seconds in course:
        if not rollout.running:
            break
        now += timedelta(seconds=seconds)
        decision = decide(rollout, step=seen, recent=NOTHING, evidence=None, now=now)
        again = decide(resumed, step=seen, recent=NOTHING, evidence=None, now=now)
        assert again == decision
        json.dumps(decision.numbers, allow_nan=False)
        before, green = rollout.traffic.weights["green"], decision.rollout.traffic.weights["green"]
        assert (green > before) == (decision.kind == "advance")
        assert green == 0 or green >= before
        rollout = decision.rollout
        resumed = Rollout.from_json(json.loads(json.dumps(rollout.to_json())))
        assert resumed == rollout


@pytest.mark.parametrize(
    ("weights", "models", "message"),
    [
        (
            {"blue": 0, "green": 10_000},
            {"blue": 3, "green": 4},
            "green answers 100 % with version 4; required",
        ),
        (
            {"blue": 9_500, "green": 500},
            {"blue": 3, "green": 9},
            "green answers 5 % with version 9; required: not",
        ),
    ],
)
def test_a_slot_in_use_is_not_taken(weights: dict[str, int], models: dict[str, int], message: str) -> None:
    with pytest.raises(TrafficError, match=message):
        start(PLAN, Traffic(weights, models), NOW)


def test_plans_are_checked() -> None:
    rules = Plan.of("green", 4, RolloutSettings(), {"steps": [10, 100], "hold_seconds": 5}).rules
    assert (rules.steps, rules.hold_seconds, rules.min_requests) == ((10.0, 100.0), 5.0, 100)
    with pytest.raises(SettingsError, match="rollout: .*steps=.*; required: increasing percentages"):
        Plan.of("green", 4, RolloutSettings(), {"steps": [10, 5, 100]})
    with pytest.raises(SettingsError, match="rollout.hold: unknown key"):
        Plan.of("green", 4, RolloutSettings(), {"hold": 5})
    for slot, version in (("red", 4), ("green", 0)):
        with pytest.raises(SettingsError, match=f"slot='{slot}', version={version}; required: one of"):
            Plan(slot, version, RolloutSettings())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"started_at": "soon"}, "Invalid isoformat string: 'soon'"),
        ({"rules": {"speed": 1}}, "rollout.speed: unknown key"),
        ({"baseline": {}}, r"traffic: got the keys \[\]; required: weights and models"),
    ],
)
def test_state_of_another_release_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(TrafficError, match=rf"saved state cannot be read \({why}.*\); required: what this"):
        Rollout.from_json({**on_step(0).to_json(), **change})
