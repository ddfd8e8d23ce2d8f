"""Ranking and figures: rules against brute force, ties by cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.errors import ModelError
from marketray.evaluation.metrics import rmse
from marketray.evaluation.selection import Rows, figures, rank, rows_of
from marketray.evaluation.significance import hac_standard_error
from tests.evaluation.blocks import make_block

MINUTE = 60_000_000
N, HORIZON = 2_000, 5
RNG = np.random.default_rng(3)
Y = RNG.normal(size=N) * 1e-3
TIMES = np.arange(N, dtype=np.int64) * MINUTE


def ranked(predictions: dict[str, np.ndarray], cv: dict[str, float]) -> list[str]:
    return rank(Y, predictions, cv, TIMES, HORIZON)


def test_clear_differences_rank_by_test_error_whatever_cv_says() -> None:
    predictions = {"a": Y * 0.1, "b": Y * 0.9, "c": Y * 0.5}
    assert ranked(predictions, {"a": 1.0, "b": 3.0, "c": 2.0}) == ["b", "c", "a"]


def test_ties_within_one_standard_error_go_to_the_smaller_cv_error() -> None:
    noise = RNG.normal(size=(2, N)) * 1e-4
    predictions = {"a": Y * 0.2 + noise[0], "b": Y * 0.2 + noise[1]}
    losses = {k: (Y - p) ** 2 for k, p in predictions.items()}
    leader, other = sorted(losses, key=lambda k: losses[k].mean())
    difference = losses[other] - losses[leader]
    assert 0 < difference.mean() <= hac_standard_error(difference, TIMES, HORIZON)  # the premise: a tie
    assert ranked(predictions, {leader: 2.0, other: 1.0}) == [other, leader]
    assert ranked(predictions, {leader: 1.0, other: 2.0}) == [leader, other]


def test_equal_forecasts_rank_by_cv_and_then_by_name() -> None:
    same = dict.fromkeys("cab", Y * 0.3)
    assert ranked(same, {"a": 2.0, "b": 1.0, "c": 2.0}) == ["b", "a", "c"]


@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_the_winner_is_within_a_standard_error_of_the_best_and_every_name_appears_once(
    seed: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    predictions = {f"m{i}": Y * rng.uniform(0, 0.3) + rng.normal(size=N) * 3e-4 for i in range(size)}
    cv = {name: float(rng.uniform(1, 2)) for name in predictions}
    order = ranked(predictions, cv)
    assert sorted(order) == sorted(predictions)
    losses = {k: (Y - p) ** 2 for k, p in predictions.items()}
    best = min(losses, key=lambda k: losses[k].mean())
    gap = losses[order[0]] - losses[best]
    assert gap.mean() <= (hac_standard_error(gap, TIMES, HORIZON) if gap.any() else 0)
    assert ranked(dict(reversed(predictions.items())), cv) == order


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ModelError, match="got no candidates"):
        ranked({}, {})
    with pytest.raises(ModelError, match="rank: a has forecasts or a cv_rmse that are not finite"):
        ranked({"a": np.full(N, np.nan)}, {"a": 1.0})
    with pytest.raises(ModelError, match="rank: b has forecasts or a cv_rmse"):
        ranked({"a": Y, "b": Y}, {"a": 1.0})


def test_too_few_rows_for_a_test_leave_the_errors_and_no_p_value() -> None:
    rows = Rows(Y[:8], {"zero": np.zeros(8)}, TIMES[:8], HORIZON)
    found = figures(rows, Y[:8] * 0.5, alpha=0.05)
    assert found["rmse_pct"] == pytest.approx(50 * np.sqrt(np.mean(Y[:8] ** 2)))
    assert (found["p_value"], found["minimum_detectable_r2"], found["n"]) == (None, None, 8)


def test_direction_is_centred_so_that_no_knowledge_is_zero() -> None:
    block = make_block(Y)
    train = np.array([0.01, 0.02, -0.01, 0.03])
    rows = rows_of(block, train, horizon_minutes=1, bar_interval_minutes=1, task="direction")
    up = (Y > 0).astype(float)
    np.testing.assert_array_equal(rows.y, up - 0.5)
    assert rows.naive["training_mean"] == pytest.approx(np.full(N, 0.25))  # 3 of 4 up
    np.testing.assert_array_equal(rows.naive["last_return"], 0.5 * np.sign(block.values[:, 0]))
    probability = 0.5 + 0.2 * (up - 0.5)
    found = figures(rows, probability - rows.centre, alpha=0.05)
    assert found["rmse_pct"] == pytest.approx(100 * rmse(up, probability))
    assert found["r2_oos"]["zero"] == pytest.approx(1 - np.mean((up - probability) ** 2) / 0.25)
    assert found["hit_rate"]["rate"] == 1.0
