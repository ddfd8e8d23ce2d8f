from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketray.errors import DataError, ModelError
from marketray.evaluation.intervals import Groups, Tracker, conformal_quantile, interval_figures, log_scores
from marketray.evaluation.uncertainty import UNCERTAINTY_FILE, Uncertainty, fit_uncertainty
from marketray.evaluation.volatility import minutes_since_open
from marketray.evaluation.walked import evaluate
from tests.evaluation.drifting import HORIZON, MINUTE_US, Drift, drifting_block, folds_of

RNG = np.random.default_rng(8)


def fitted(sessions: int, drift: Drift, seed: int, *, columns: bool = True) -> tuple[Uncertainty, list]:
    """Fitted with the zero forecast on the first 70 %, and what follows in two splits."""
    block = drifting_block(sessions, drift, seed, columns=columns)
    edges = [int(len(block) * share) for share in (0.7, 0.85, 1.0)]
    past = block.take(slice(0, edges[0]))
    folds = folds_of(len(past))
    zeros = np.zeros(sum(score.stop - score.start for _, score in folds))
    made = fit_uncertainty(past, folds, zeros, task="regression", horizon_minutes=HORIZON)
    rest = [block.take(slice(a + HORIZON, b)) for a, b in pairwise(edges)]
    return made, rest


def walked(sessions: int, drift: Drift, seed: int, *, columns: bool = True) -> dict:
    """The sections of the report for both splits, walked in order."""
    state, splits = fitted(sessions, drift, seed, columns=columns)
    seen = {}
    for name, block in zip(("test", "oot"), splits, strict=True):
        seen[name], state = state.walk(block, np.zeros(len(block)))
    return evaluate(seen, state.method)


def pooled(report: dict, key: str) -> dict[str, float]:
    """Coverage at 80 % by group over both splits together."""
    groups: dict[str, list[tuple[int, float]]] = {}
    for split in ("test", "oot"):
        for g in report["intervals"][split][key]:
            if g["n"]:
                groups.setdefault(g["name"], []).append((g["n"], g["coverage_80"]))
    return {k: float(np.average([c for _, c in v], weights=[n for n, _ in v])) for k, v in groups.items()}


@pytest.mark.parametrize("columns", [True, False], ids=["volatilities", "time-only"])
@pytest.mark.parametrize("drift", ["none", "ramp", "jump", "tails"])
def test_coverage_holds_through_drift(drift: Drift, columns: bool) -> None:
    report = walked(800, drift, 3, columns=columns)
    for split in ("test", "oot"):
        for level, found in report["intervals"][split]["levels"].items():
            assert found["coverage"] == pytest.approx(float(level) / 100, abs=0.02), (split, level)
            assert found["infinite_share"] == 0
    for key in ("by_hour", "by_volatility"):
        for name, coverage in pooled(report, key).items():
            assert coverage == pytest.approx(0.8, abs=0.05), (key, name)


@pytest.mark.parametrize("drift", ["none", "ramp", "jump", "tails"])
def test_scaled_widths_score_better_than_a_constant_width(drift: Drift) -> None:
    report = walked(800, drift, 4)
    for split in ("test", "oot"):
        for found in report["intervals"][split]["levels"].values():
            assert found["winkler_pct"] < found["constant_winkler_pct"]
            assert found["pinball_pct"] < found["constant_pinball_pct"]


@pytest.mark.slow
@pytest.mark.parametrize("drift", ["none", "ramp", "jump", "tails"])
def test_coverage_holds_over_many_seeds(drift: Drift) -> None:
    reports = [walked(800, drift, seed, columns=seed % 2 == 0) for seed in range(100, 130)]
    for level in ("50", "80", "95"):
        off = [
            r["intervals"][s]["levels"][level]["coverage"] - float(level) / 100
            for r in reports
            for s in ("test", "oot")
        ]
        assert np.mean(np.abs(off) <= 0.02) >= 0.95, (level, np.abs(off).max())
        assert np.mean(off) == pytest.approx(0, abs=0.005)


def test_static_widths_lose_coverage_where_the_adaptive_ones_hold_it() -> None:
    """What the adaptation is for: the widths of the first day, kept through a ramp of volatility."""
    state, (block, _) = fitted(800, "ramp", 5, columns=False)
    half = state.scale.of(block)[:, None] * np.exp(np.array(state.tracker.base))
    static = (np.abs(block.y)[:, None] <= half).mean(axis=0)
    adapted, _ = state.walk(block, np.zeros(len(block)))
    assert static[1] < 0.74
    assert adapted.covered().mean() == pytest.approx(0.8, abs=0.02)


def naive_walk(
    tracker: Tracker, scores: np.ndarray, groups: Groups, decision: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The same by the definition: at every decision, first the labels that have ended since the last one."""
    known: set[int] = set()
    effects = {("all", 0): np.array(tracker.base)}
    effects |= {("hour", h): np.array([e[h] for e in tracker.hours]) for h in range(len(tracker.hours[0]))}
    effects |= {("third", t): np.array([e[t] for e in tracker.terciles]) for t in range(3)}
    steps = {"all": 0.02, "hour": 0.1, "third": 0.02}
    levels, out = np.array(tracker.levels), []
    members = [
        [("all", 0), ("hour", min(int(h), len(tracker.hours[0]) - 1)), ("third", int(t))]
        for h, t in zip(groups.hour, groups.tercile, strict=True)
    ]
    for i in range(len(scores)):
        for j in range(len(scores)):
            if end[j] <= decision[i] and j not in known:
                known.add(j)
                error = (scores[j] > out[j]).astype(float) - (1 - levels)
                for name in members[j]:
                    effects[name] = effects[name] + steps[name[0]] * error / tracker.overlap
        out.append(sum(effects[name] for name in members[i]))
    return np.exp(np.maximum.accumulate(np.array(out), axis=1))


def small_walk(n: int = 240) -> tuple[Tracker, np.ndarray, Groups, np.ndarray, np.ndarray]:
    gaps = RNG.choice([1, 1, 1, 2, 45], n)
    decision = np.cumsum(gaps).astype(np.int64) * MINUTE_US
    end = decision + RNG.integers(26, 31, n) * MINUTE_US
    end = np.maximum.accumulate(end)
    groups = Groups(RNG.integers(0, 5, n), RNG.integers(0, 3, n))
    start = Tracker.start(RNG.normal(size=300), 4, np.arange(300) * 60, np.arange(300) * 60 + 1800)
    return replace(start, as_of_us=0), RNG.normal(size=n), groups, decision, end


def test_the_walk_equals_the_definition() -> None:
    tracker, scores, groups, decision, end = small_walk()
    widths, after = tracker.walk(scores, groups, decision, end)
    np.testing.assert_allclose(widths, naive_walk(tracker, scores, groups, decision, end), rtol=1e-12)
    assert tracker.overlap == 30
    assert after.as_of_us == end[-1]
    for hour, third in ((0, 0), (3, 2), (9, 1)):
        last = np.append(decision, end[-1] + 1), np.append(end, end[-1] + 2)
        more = Groups(np.append(groups.hour, hour), np.append(groups.tercile, third))
        grown, _ = tracker.walk(np.append(scores, 0.0), more, *last)
        np.testing.assert_allclose(after.factors(hour, third), grown[-1], rtol=1e-12)


def test_only_labels_that_have_ended_count() -> None:
    tracker, scores, groups, decision, end = small_walk()
    widths, _ = tracker.walk(scores, groups, decision, end)
    for i in (50, 120, 200):
        open_labels = end > decision[i]
        changed = np.where(open_labels, scores + RNG.normal(size=len(scores)) * 5, scores)
        other, _ = tracker.walk(changed, groups, decision, end)
        np.testing.assert_array_equal(other[: i + 1], widths[: i + 1])
        last = int(np.flatnonzero(~open_labels)[-1])
        flipped = scores.copy()
        flipped[last] = 9.0 if scores[last] < np.log(widths[last, 0]) else -9.0
        other, _ = tracker.walk(flipped, groups, decision, end)
        assert not np.array_equal(other[i], widths[i])


def test_a_walk_in_two_parts_is_the_walk_in_one() -> None:
    """Where no label is open at the cut."""
    tracker, scores, groups, decision, end = small_walk()
    cut = next(i for i in range(100, len(end)) if end[i - 1] <= decision[i])
    whole, final = tracker.walk(scores, groups, decision, end)
    first, middle = tracker.walk(
        scores[:cut], Groups(groups.hour[:cut], groups.tercile[:cut]), decision[:cut], end[:cut]
    )
    second, last = middle.walk(
        scores[cut:], Groups(groups.hour[cut:], groups.tercile[cut:]), decision[cut:], end[cut:]
    )
    np.testing.assert_array_equal(np.vstack([first, second]), whole)
    assert last == final


@hypothesis_settings(max_examples=15)
@given(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.4, 2.0]), min_size=10, max_size=40), st.integers(0, 2))
def test_any_bounded_scores_are_covered_in_the_long_run(cycle: list[float], flips: int) -> None:
    """Within the bound of quantile tracking, (range + step) / (step · T), for labels that end at once.

    Where most scores are equal, a level may cover more: it is never narrower than the level below it.
    """
    scores = np.tile(cycle, 2000 // len(cycle)) + 0.0123  # no width is ever exactly a score
    scores[len(scores) // 2 :] += flips - 1.0
    n = len(scores)
    times = np.arange(n, dtype=np.int64)
    flat = Groups(np.zeros(n, np.int64), np.zeros(n, np.int64))
    tracker = Tracker((0.5, 0.8, 0.95), (0.0,) * 3, ((0.0,),) * 3, ((0.0,) * 3,) * 3, 1.0, -1)
    widths, _ = tracker.walk(scores, flat, times * 2, times * 2 + 1)
    missed = (scores[:, None] > np.log(widths)).mean(axis=0)
    bound = (6.0 + 0.14) / (0.14 * n)  # the three effects move together
    assert missed[0] == pytest.approx(0.5, abs=bound)
    assert (missed <= np.array([0.5, 0.2, 0.05]) + bound).all()
    assert np.isfinite(widths).all()
    assert (np.diff(widths, axis=1) >= 0).all()


@given(st.integers(19, 400), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_conformal_quantile_is_the_order_statistic(n: int, level: float) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    rank = -int(-(n + 1) * round(level * 100) // 100)
    expected = np.quantile(scores, (rank - 0.5) / n, method="inverted_cdf")
    assert conformal_quantile(scores, level) == expected


def test_log_scores() -> None:
    np.testing.assert_allclose(log_scores([-2e-3, 1e-3, 0.0], [1e-3, 2e-3, 1e-3]), np.log([2, 0.5, 1e-6]))


def test_figures_equal_the_known_library_and_the_definition() -> None:
    from sklearn.metrics import mean_pinball_loss

    y, centre = RNG.normal(size=500) * 1e-3, RNG.normal(size=500) * 2e-4
    half = RNG.uniform(2e-4, 2e-3, 500)
    low, high = centre - half, centre + 1.3 * half
    for level in (0.5, 0.8, 0.95):
        found = interval_figures(y, low, high, level)
        scores = []
        for value, a, b in zip(y, low, high, strict=True):
            below = 2 / (1 - level) * (a - value) if value < a else 0.0
            above = 2 / (1 - level) * (value - b) if value > b else 0.0
            scores.append(b - a + below + above)
        assert found["winkler_pct"] == pytest.approx(100 * np.mean(scores), rel=1e-12)
        ends = [
            mean_pinball_loss(y, low, alpha=(1 - level) / 2),
            mean_pinball_loss(y, high, alpha=(1 + level) / 2),
        ]
        assert found["pinball_pct"] == pytest.approx(100 * np.mean(ends), rel=1e-12)
        assert found["coverage"] == sum(a <= v <= b for v, a, b in zip(y, low, high, strict=True)) / 500
        assert found["mean_width_pct"] == pytest.approx(230 * half.mean(), rel=1e-12)
        assert (found["target"], found["infinite_share"]) == (level, 0.0)


def test_infinite_intervals_are_counted_and_have_no_mean() -> None:
    found = interval_figures([0.0, 1.0], [-np.inf, 0.0], [np.inf, 0.5], 0.8)
    assert found["infinite_share"] == found["coverage"] == 0.5
    assert found["mean_width_pct"] is found["winkler_pct"] is found["pinball_pct"] is None


@pytest.fixture(scope="module")
def made() -> tuple[Uncertainty, list]:
    return fitted(200, "none", 1)


def test_one_row_gets_what_the_walk_gives_it(made: tuple[Uncertainty, list]) -> None:
    state, (block, _) = made
    predictions = RNG.normal(size=len(block)) * 1e-4
    seen, after = state.walk(block, predictions)
    first = state.at(float(predictions[0]), block.values[0], minutes_since_open(block)[0])
    assert [level for level, _, _ in first.intervals] == [0.5, 0.8, 0.95]
    np.testing.assert_allclose([low for _, low, _ in first.intervals], seen.low[0], rtol=1e-12)
    np.testing.assert_allclose([high for _, _, high in first.intervals], seen.high[0], rtol=1e-12)
    assert first.probability_up == pytest.approx(seen.probability_up[0], rel=1e-12)
    assert after.as_of.timestamp() == block.label_end_us[-1] / 1e6


def test_the_document_gives_the_same_back(made: tuple[Uncertainty, list], tmp_path: Path) -> None:
    state, (block, _) = made
    _, state = state.walk(block, np.zeros(len(block)))
    assert Uncertainty.read(tmp_path) is None
    (tmp_path / UNCERTAINTY_FILE).write_text(json.dumps(state.to_json()))
    assert Uncertainty.read(tmp_path) == state
    assert state.to_json()["method"].endswith(
        "realized_volatility_20, realized_volatility_60 and the time since the session's open."
    )


def test_damaged_documents_are_refused(made: tuple[Uncertainty, list], tmp_path: Path) -> None:
    value = made[0].to_json()
    with pytest.raises(ModelError, match="got format 7; required: 1"):
        Uncertainty.from_json({**value, "format": 7})
    with pytest.raises(ModelError, match=r"uncertainty\.json: not usable \(KeyError: 'cuts'\)"):
        Uncertainty.from_json({k: v for k, v in value.items() if k != "cuts"})
    (tmp_path / UNCERTAINTY_FILE).write_text("{")
    with pytest.raises(ModelError, match="not readable as JSON"):
        Uncertainty.read(tmp_path)


def test_a_direction_model_has_intervals_around_the_last_close(made: tuple[Uncertainty, list]) -> None:
    state, (block, _) = made
    directional = replace(state, task="direction")
    answer = directional.at(0.7, block.values[0], 90.0)
    assert all(low == -high < 0 for _, low, high in answer.intervals)
    seen, _ = directional.walk(block, np.full(len(block), 0.7))
    np.testing.assert_array_equal(seen.low, -seen.high)


def test_what_cannot_be_walked_is_refused(made: tuple[Uncertainty, list]) -> None:
    state, (block, later) = made
    _, after = state.walk(block, np.zeros(len(block)))
    with pytest.raises(DataError, match="walk the splits in time order"):
        after.walk(block, np.zeros(len(block)))
    with pytest.raises(DataError, match="decision_us is not in time order"):
        after.walk(later.take(np.arange(len(later))[::-1]), np.zeros(len(later)))
    with pytest.raises(DataError, match="got no rows; required: at least 1"):
        state.walk(block.take(slice(0, 0)), np.zeros(0))


def test_what_cannot_be_fitted_is_refused() -> None:
    block = drifting_block(50, "none", 0)
    folds = [(slice(0, 1000), slice(1100, 1200))]
    with pytest.raises(DataError, match=r"of shape \(99,\), 0 of them not finite; required: \(100,\)"):
        fit_uncertainty(block, folds, np.zeros(99), task="regression", horizon_minutes=HORIZON)
    wrong = np.where(np.arange(100) == 3, np.nan, 0.0)
    with pytest.raises(DataError, match=r"1 of them not finite; required: \(100,\), finite"):
        fit_uncertainty(block, folds, wrong, task="regression", horizon_minutes=HORIZON)
    with pytest.raises(DataError, match="got 18 scores for level 0.95; required: at least 19"):
        conformal_quantile(np.arange(18.0), 0.95)
