"""Counting what slots did: against recounts of the same requests, and over processes that come and go."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.serving.rollouts.outcomes import LATENCY_BOUNDS_MS, Outcomes, Window

latencies = st.lists(st.floats(0.01, 200_000), min_size=1, max_size=200)


def served(latency_ms: list[float], process: str = "a") -> Outcomes:
    made = Outcomes(process)
    for value in latency_ms:
        made.answered("green", 4, value)
    return made


def all_of(*outcomes: Outcomes, slot: str = "green", version: int = 4) -> Window:
    return Window.between([], [o.snapshot() for o in outcomes], slot, version)


def test_bounds_are_twenty_a_decade() -> None:
    assert LATENCY_BOUNDS_MS[0] == pytest.approx(0.1)
    assert LATENCY_BOUNDS_MS[-1] == pytest.approx(100_000)
    assert np.allclose(np.diff(np.log10(LATENCY_BOUNDS_MS)), 0.05)


def test_each_request_counts_for_its_slot_and_version() -> None:
    counted = Outcomes("a")
    for _ in range(7):
        counted.answered("green", 4, 3.0)
    counted.answered("green", 4, 3.0, null=True)
    counted.failed("green", 4, 900.0)
    counted.failed("green", 5, 1.0)
    counted.answered("blue", 4, 1.0)
    green = all_of(counted)
    assert (green.requests, green.errors, green.nulls) == (9, 1, 1)
    assert green.error_rate == pytest.approx(1 / 9)
    assert green.null_rate == pytest.approx(1 / 9)
    assert all_of(counted, version=5).error_rate == 1.0
    assert all_of(counted, slot="blue").error_rate == 0.0
    assert sum(green.latency) == 9


def test_rates_of_nothing_are_unknown() -> None:
    empty = all_of(Outcomes("a"))
    assert empty == Window()
    assert (empty.error_rate, empty.null_rate, empty.disagreement) == (None, None, None)
    assert (empty.p99_ms, empty.mean_absolute_difference, empty.slower_than(1.0)) == (None, None, 0)


@given(latencies)
def test_p99_is_the_bound_above_the_nearest_rank(values: list[float]) -> None:
    exact = sorted(values)[math.ceil(0.99 * len(values)) - 1]
    got = all_of(served(values)).p99_ms
    assert got is not None
    assert got >= min(exact, LATENCY_BOUNDS_MS[-1])
    if 0.1 < exact <= 100_000:
        assert got <= exact * 10**0.05 * (1 + 1e-9)
    if exact > 100_000:
        assert got == LATENCY_BOUNDS_MS[-1]


@given(latencies, st.floats(0.05, 300_000))
def test_slower_than_never_counts_a_faster_request(values: list[float], limit: float) -> None:
    got = all_of(served(values)).slower_than(limit)
    assert got <= sum(v > limit for v in values)
    assert got >= sum(v > limit * 10**0.05 * (1 + 1e-9) for v in values if limit > 0.1 and v < 100_000)


def test_shadow_pairs_measure_how_far_models_are_apart() -> None:
    rng = np.random.default_rng(5)
    shadow, live = rng.normal(size=(2, 500))
    counted = Outcomes("a")
    for a, b in zip(shadow.tolist(), live.tolist(), strict=True):
        counted.paired("green", 4, a, b)
    counted.paired("green", 4, math.nan, 1.0)
    counted.paired("green", 4, 1.0, math.inf)
    window = all_of(counted)
    assert (window.pairs, window.requests) == (500, 0)
    assert window.disagreement == pytest.approx((np.sign(shadow) != np.sign(live)).mean())
    assert window.mean_absolute_difference == pytest.approx(np.abs(shadow - live).mean())
    assert window.squared_difference == pytest.approx(((shadow - live) ** 2).sum())


def test_zero_disagrees_with_up_and_down_alone() -> None:
    counted = Outcomes("a")
    for shadow, live in [(0.0, 0.0), (0.0, -0.0), (0.0, 1.0), (-1.0, 0.0), (1e-9, 5.0)]:
        counted.paired("green", 4, shadow, live)
    assert all_of(counted).sign_disagreements == 2


def test_a_window_is_what_happened_between_two_snapshots() -> None:
    stays, leaves, comes = Outcomes("stays"), Outcomes("leaves"), Outcomes("comes")
    for _ in range(100):
        stays.failed("green", 4, 1.0)
        leaves.failed("green", 4, 1.0)
    previous = json.loads(json.dumps([stays.snapshot(), leaves.snapshot()]))
    for _ in range(3):
        stays.answered("green", 4, 7.0)
        comes.failed("green", 4, 70.0)
    now = json.loads(json.dumps([comes.snapshot(), stays.snapshot()]))
    window = Window.between(previous, now, "green", 4)
    assert (window.requests, window.errors) == (6, 3)
    assert sum(window.latency) == 6
    assert window.p99_ms == pytest.approx(70.0, rel=0.13)
    assert Window.between(now, now, "green", 4) == Window()


def test_a_snapshot_keeps_its_numbers() -> None:
    counted = Outcomes("a")
    counted.answered("green", 4, 1.0)
    first = counted.snapshot()
    counted.answered("green", 4, 1.0)
    assert Window.between([first], [counted.snapshot()], "green", 4).requests == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60), st.integers(0, 60))
def test_windows_add_up(events: list[tuple[int, bool]], cut: int) -> None:
    processes = [Outcomes(str(i)) for i in range(3)]
    start = [p.snapshot() for p in processes]
    middle = start
    for k, (which, fails) in enumerate(events):
        if k == cut:
            middle = [p.snapshot() for p in processes]
        count = processes[which].failed if fails else processes[which].answered
        count("green", 4, 2.0)
    end = [p.snapshot() for p in processes]
    parts = [Window.between(*ends, "green", 4) for ends in ((start, middle), (middle, end))]
    whole = Window.between(start, end, "green", 4)
    assert sum(p.requests for p in parts) == whole.requests == len(events)
    assert sum(p.errors for p in parts) == whole.errors == sum(fails for _, fails in events)
