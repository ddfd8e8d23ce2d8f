"""Scores of recorded predictions, against sums by hand."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from marketray.serving.store import Store
from marketray.serving.store.predictions import PredictionRow, Settlement, Wanted
from marketray.serving.store.scores import PAIRS, Arm, ArmSummary
from tests.serving.store.rows import HORIZON, START, row

OLD, NEW = Arm("blue", 1), Arm("green", 2)
MINUTE = timedelta(minutes=1)


def both(
    name: str, decision: int, old: float | None, new: float | None, **changes: object
) -> list[PredictionRow]:
    """An answer of the old model and one of the new model as its shadow."""
    common = {"decision_at": START + decision * MINUTE, **changes}
    return [
        row(name, predicted_return=old, **common),
        row(name, predicted_return=new, slot="green", model_version=2, shadow=True, **common),
    ]


def settle(store: Store, actual: dict[int, float]) -> None:
    """Settle the decisions so many minutes after `START`."""
    due = store.predictions.due(START + 1000 * MINUTE)
    minute = {p.id: (p.decision_at - START) // MINUTE for p in due if p.decision_at is not None}
    store.predictions.settle([Settlement(i, actual[m]) for i, m in minute.items() if m in actual])


def test_losses_are_paired_by_request_once_a_decision(store: Store) -> None:
    actual = {m: 0.0005 * (m - 2) for m in range(7)}
    rows = [
        *both("a", 0, 0.001, 0.002),
        *both("a again", 0, 0.5, 0.5),  # a later request of the same decision
        *both("b", 1, None, 0.002),  # no forecast by one of them
        *both("c", 3, -0.001, 0.0004),
        *both("sent", 4, 0.001, 0.002, bars="request"),
        *both("other", 5, 0.001, 0.002, instrument="NAS100_USD"),
        row("alone", decision_at=START + 6 * MINUTE),
        row("apart", decision_at=START + 6 * MINUTE, slot="green", model_version=2),
        *both("d", 2, 0.003, -0.001),
        *both("unsettled", 9, 0.001, 0.002),
    ]
    store.predictions.record(rows)
    settle(store, actual)
    got = store.scores.paired("SPX500_USD", NEW, OLD)
    assert dict(got.schema) == PAIRS
    assert got["decision_at"].to_list() == [START + m * MINUTE for m in (0, 2, 3)]
    assert got["target_at"].to_list() == [START + m * MINUTE + HORIZON for m in (0, 2, 3)]
    true = np.array([actual[m] for m in (0, 2, 3)])
    np.testing.assert_array_equal(got["actual_return"], true)
    np.testing.assert_allclose(got["loss_a"], ([0.002, -0.001, 0.0004] - true) ** 2, rtol=1e-12)
    np.testing.assert_allclose(got["loss_b"], ([0.001, 0.003, -0.001] - true) ** 2, rtol=1e-12)
    later = store.scores.paired("SPX500_USD", NEW, OLD, after=START)
    assert later.equals(got[1:])
    swapped = store.scores.paired("SPX500_USD", OLD, NEW)
    assert swapped["loss_a"].equals(got["loss_b"].alias("loss_a"))
    assert store.scores.paired("SPX500_USD", Arm("green", 3), OLD).is_empty()


def test_probabilities_are_scored_by_their_squared_distance_to_what_happened(store: Store) -> None:
    probabilities = [0.6, 0.6, 0.3]
    for n, p in enumerate(probabilities):
        store.predictions.record(both(str(n), n, None, None, probability_up=p))
    settle(store, {0: 0.001, 1: -0.001, 2: 0.0})
    got = store.scores.paired("SPX500_USD", NEW, OLD, loss="brier")
    np.testing.assert_allclose(got["loss_a"], [0.4**2, 0.6**2, 0.3**2], rtol=1e-12)
    assert store.scores.paired("SPX500_USD", NEW, OLD).is_empty()


def test_a_summary_counts_by_model_and_slot(store: Store) -> None:
    store.predictions.record(
        [
            *both("a", 0, 0.001, 0.002),
            *both("b", 1, 0.003, 0.001),
            row("null", predicted_return=float("nan"), probability_up=None, decision_at=START + MINUTE),
            row("refused", predicted_return=None, probability_up=None, status=422, problem="bars"),
            row("broken", predicted_return=None, probability_up=None, status=503, problem="no-fresh-bar"),
            row("broken 2", predicted_return=None, probability_up=None, status=500, at=START + 9 * MINUTE),
        ]
    )
    settle(store, {0: 0.0, 1: 0.001})
    blue, green = store.scores.summary()
    assert (blue.slot, blue.version, blue.shadow) == ("blue", 1, False)
    assert (blue.n, blue.errors, blue.nulls, blue.settled) == (6, 2, 1, 2)
    assert blue.mean_loss == pytest.approx((1e-6 + 4e-6) / 2)
    assert green == ArmSummary("green", 2, True, 2, 0, 0, 2, pytest.approx(2e-6))
    (late,) = store.scores.summary(Wanted(from_at=START + 5 * MINUTE))
    assert (late.n, late.errors, late.settled, late.mean_loss) == (1, 1, 0, None)
    assert store.scores.summary(Wanted(instrument="NAS100_USD")) == []
    (brier,) = store.scores.summary(Wanted(shadow=True), loss="brier")
    assert brier.mean_loss == pytest.approx((0.53**2 + 0.47**2) / 2)
