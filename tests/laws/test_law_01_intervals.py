"""Law 1, intervals: what is stated at a decision knows only labels that have ended by then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marketray.dataset.load import Block
from marketray.evaluation.uncertainty import Uncertainty, fit_uncertainty
from tests.evaluation.drifting import HORIZON, drifting_block, folds_of

BLOCK = drifting_block(120, "none", 6)
CUT = 5_000


@pytest.fixture(scope="module")
def known() -> Uncertainty:
    """Fitted with the zero forecast on the first rows."""
    past = BLOCK.take(slice(0, CUT))
    folds = folds_of(CUT)
    zeros = np.zeros(sum(score.stop - score.start for _, score in folds))
    return fit_uncertainty(past, folds, zeros, task="regression", horizon_minutes=HORIZON)


def stated(known: Uncertainty, rows: Block) -> tuple[np.ndarray, np.ndarray]:
    """Interval ends and probabilities of rows that follow, from a forecast that is not constant."""
    forecast = 1e-4 * np.sin(np.arange(len(rows)))
    walked, _ = known.walk(rows, forecast)
    return np.hstack([walked.low, walked.high]), walked.probability_up


@pytest.mark.parametrize("row", [10, 400, 1_111])
def test_labels_that_end_after_the_decision_change_nothing(known: Uncertainty, row: int) -> None:
    rows = BLOCK.take(slice(CUT + HORIZON, None))
    still_open = rows.label_end_us > rows.decision_us[row]
    factor = np.where(still_open, 50.0, 1.0)
    before, after = stated(known, rows), stated(known, replace(rows, y=rows.y * factor))
    np.testing.assert_array_equal(before[0][: row + 1], after[0][: row + 1])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("row", [10, 400, 1_111])
def test_a_label_that_ends_at_the_decision_is_heard(known: Uncertainty, row: int) -> None:
    """So that the test above could fail."""
    rows = BLOCK.take(slice(CUT + HORIZON, None))
    last = int(np.flatnonzero(rows.label_end_us <= rows.decision_us[row])[-1])
    before, _ = stated(known, rows)
    missed = not before[last, 0] <= rows.y[last] <= before[last, 3]
    y = rows.y.copy()
    y[last] = 0.0 if missed else 1.0
    after, _ = stated(known, replace(rows, y=y))
    np.testing.assert_array_equal(before[:row], after[:row])
    assert (before[row] != after[row]).any()
