"""Law 5, intervals and probabilities: scores of a fold come from what was fitted on its training rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from marketray.dataset.load import Block
from marketray.evaluation.uncertainty import Uncertainty, fit_uncertainty
from tests.evaluation.drifting import HORIZON, drifting_block

BLOCK = drifting_block(120, "none", 6)
FOLD = (slice(0, 4_000), slice(4_200, 6_000))


def fitted(block: Block, forecast: np.ndarray) -> Uncertainty:
    return fit_uncertainty(block, [FOLD], forecast, task="regression", horizon_minutes=HORIZON)


def test_the_scale_of_a_fold_does_not_know_its_scored_rows() -> None:
    """Labels of the scored rows, three times as large, triple their scores: the scale stays."""
    factor = np.ones(len(BLOCK))
    factor[FOLD[1]] = 3.0
    larger = replace(BLOCK, y=BLOCK.y * factor)
    zeros = np.zeros(FOLD[1].stop - FOLD[1].start)
    before, after = fitted(BLOCK, zeros), fitted(larger, zeros)
    np.testing.assert_allclose(np.subtract(after.tracker.base, before.tracker.base), np.log(3), rtol=1e-9)
    np.testing.assert_allclose(np.divide(after.constant, before.constant), 3, rtol=1e-12)


def test_the_calibration_is_of_the_out_of_fold_rows_alone() -> None:
    forecast = 1e-3 * np.random.default_rng(4).standard_normal(FOLD[1].stop - FOLD[1].start)
    skilled = forecast + BLOCK.y[FOLD[1]]
    opposite = BLOCK.y.copy()
    opposite[FOLD[0]] *= -1
    before, after = fitted(BLOCK, skilled), fitted(replace(BLOCK, y=opposite), skilled)
    assert before.calibration.slope > 0
    assert after.calibration == before.calibration


def test_later_splits_change_neither_the_scale_nor_the_calibration() -> None:
    zeros = np.zeros(FOLD[1].stop - FOLD[1].start)
    made = fitted(BLOCK.take(slice(0, 6_000)), zeros)
    _, after = made.walk(BLOCK.take(slice(6_100, None)), np.zeros(len(BLOCK) - 6_100))
    assert after.tracker != made.tracker
    assert replace(after, tracker=made.tracker) == made


def test_rows_of_the_gap_are_nowhere_in_the_fold() -> None:
    wild = BLOCK.y.copy()
    wild[FOLD[0].stop : FOLD[1].start] *= 20
    zeros = np.zeros(FOLD[1].stop - FOLD[1].start)
    assert fitted(replace(BLOCK, y=wild), zeros).tracker == fitted(BLOCK, zeros).tracker
