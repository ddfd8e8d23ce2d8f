"""What stands beside a model's forecast: intervals and a calibrated probability of its direction.

`fit_uncertainty` learns from train + validation and the model's purged out-of-fold predictions; the result
goes into the model's folder as ``uncertainty.json``. `Uncertainty.walk` follows it through later
splits in time order, `marketray.evaluation.walked.evaluate` says how good that was, and `Uncertainty.at`
answers for one row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError, ModelError
from marketray.evaluation.calibration import Calibration, fit_calibration, normal_guess
from marketray.evaluation.intervals import (
    LEVELS,
    Groups,
    Tracker,
    conformal_quantile,
    log_scores,
)
from marketray.evaluation.volatility import SCALE_COLUMNS, ScaleForecast, fit_scale, minutes_since_open
from marketray.evaluation.walked import Walked

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.models.base import Task

__all__ = ["UNCERTAINTY_FILE", "Answer", "Uncertainty", "fit_uncertainty"]

FloatArray = npt.NDArray[np.float64]

UNCERTAINTY_FILE = "uncertainty.json"
"""Its file in a model's folder."""

FORMAT = 1
"""Version of the layout of ``uncertainty.json``."""


@dataclass(frozen=True)
class Answer:
    """For one live row.

    Attributes
    ----------
    probability_up:
        Calibrated P(label > 0).
    confidence:
        Calibrated P(the label has the forecast's direction).
    intervals:
        (level, low, high) of the return, fractions, by level.
    """

    probability_up: float
    confidence: float
    intervals: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Uncertainty:
    """Everything that intervals and probabilities need.

    Attributes
    ----------
    task:
        Of the model. Intervals of a direction model, which forecasts no return, are centred at 0.
    horizon_minutes:
        Of the label.
    scale:
        Volatility forecast, fitted on train + validation.
    tracker:
        Widths as of the last label that has ended.
    calibration:
        From the model's answer to P(up).
    constant:
        Half widths of the constant intervals, fractions, by level.
    cuts:
        Terciles of the volatility forecast on train + validation, fractions.
    """

    task: Task
    horizon_minutes: int
    scale: ScaleForecast
    tracker: Tracker
    calibration: Calibration
    constant: tuple[float, ...]
    cuts: tuple[float, float]

    @property
    def method(self) -> str:
        """How the intervals are made, in words."""
        return (
            "Split-conformal on the log-scores of purged out-of-fold predictions, adapted to every ended "
            "label by quantile tracking (adaptive conformal inference on the width), over all rows, by hour "
            "of the session and by third of volatility; scaled by a volatility forecast from "
            f"{self.scale.method}."
        )

    @property
    def as_of(self) -> datetime:
        """End of the last label that the widths know, UTC."""
        return datetime.fromtimestamp(self.tracker.as_of_us / 1e6, UTC)

    def walk(self, block: Block, prediction: FloatArray) -> tuple[Walked, Uncertainty]:
        """Go through the rows of a split that follows, updating with labels as they end.

        Parameters
        ----------
        block:
            Rows in time order with at least the columns of `scale`; the first decision lies after the labels
            of the rows walked before (test before OOT before OOT2; the splits' gaps take care of that).
        prediction:
            The model's answers: returns as fractions, or P(up) for the direction task; shape (n,).

        Returns
        -------
        tuple
            What would have been served, and the uncertainty as of the end of the block's last label.

        Raises
        ------
        DataError
            A column is missing, or the rows are not in time order or overlap with those before.
        """
        centre = _centre(self.task, prediction)
        minutes = minutes_since_open(block)
        scale = self.scale(block.select(self.scale.columns).values, minutes)
        groups = Groups.of(minutes, scale, self.cuts)
        factors, tracker = self.tracker.walk(
            log_scores(block.y - centre, scale), groups, block.decision_us, block.label_end_us
        )
        half = scale[:, None] * factors
        constant = np.array(self.constant)
        walked = Walked(
            y=block.y,
            levels=tracker.levels,
            low=centre[:, None] - half,
            high=centre[:, None] + half,
            constant_low=centre[:, None] - constant,
            constant_high=centre[:, None] + constant,
            probability_up=self.calibration(_guess(self.task, prediction, scale)),
            base_rate=self.calibration.base_rate,
            groups=groups,
        )
        return walked, replace(self, tracker=tracker)

    def at(self, prediction: float, values: npt.ArrayLike, minutes: float) -> Answer:
        """Answer for one row.

        Parameters
        ----------
        prediction:
            The model's answer: a return, or P(up) for the direction task.
        values:
            The row's values of `scale`'s columns, NaN where missing, shape (k,).
        minutes:
            Minutes from the session's open to the decision.
        """
        given = np.array([prediction])
        scale = self.scale(values, [minutes])
        centre = float(_centre(self.task, given)[0])
        up = float(self.calibration(_guess(self.task, given, scale))[0])
        lean = prediction if self.task == "regression" else up - 0.5
        direction = "up" if lean > 0 else "down" if lean < 0 else "flat"
        groups = Groups.of(np.array([minutes]), scale, self.cuts)
        half = scale[0] * self.tracker.factors(int(groups.hour[0]), int(groups.tercile[0]))
        intervals = tuple(
            (level, centre - float(h), centre + float(h))
            for level, h in zip(self.tracker.levels, half, strict=True)
        )
        return Answer(up, self.calibration.confidence(up, direction), intervals)

    def to_json(self) -> dict[str, Any]:
        """Content of ``uncertainty.json``."""
        return {
            "format": FORMAT,
            "method": self.method,
            "as_of": self.as_of.isoformat(),
            "task": self.task,
            "horizon_minutes": self.horizon_minutes,
            "scale": self.scale.to_json(),
            "tracker": self.tracker.to_json(),
            "calibration": self.calibration.to_json(),
            "constant": list(self.constant),
            "cuts": list(self.cuts),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Uncertainty:
        """The inverse of `to_json`.

        Raises
        ------
        ModelError
            The document is of another format, or lacks a key.
        """
        try:
            if value["format"] != FORMAT:
                msg = f"{UNCERTAINTY_FILE}: got format {value['format']!r}; required: {FORMAT}"
                raise ModelError(msg, hint="serve the model with the version of marketray that selected it")
            low, high = (float(cut) for cut in value["cuts"])
            return cls(
                task=value["task"],
                horizon_minutes=int(value["horizon_minutes"]),
                scale=ScaleForecast.from_json(value["scale"]),
                tracker=Tracker.from_json(value["tracker"]),
                calibration=Calibration.from_json(value["calibration"]),
                constant=tuple(float(width) for width in value["constant"]),
                cuts=(low, high),
            )
        except (KeyError, TypeError, ValueError) as e:
            msg = f"{UNCERTAINTY_FILE}: not usable ({type(e).__name__}: {e})"
            raise ModelError(msg, hint="register the model again with `marketray select`") from e

    @classmethod
    def read(cls, folder: Path) -> Uncertainty | None:
        """From a model's folder; None where it has no such file.

        Raises
        ------
        ModelError
            The file cannot be used.
        """
        path = folder / UNCERTAINTY_FILE
        if not path.exists():
            return None
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError) as e:
            msg = f"{path}: not readable as JSON ({e})"
            raise ModelError(msg, hint="register the model again with `marketray select`") from e
        return cls.from_json(value)


def fit_uncertainty(
    past: Block,
    folds: Sequence[tuple[slice, slice]],
    out_of_fold: FloatArray,
    *,
    task: Task,
    horizon_minutes: int,
    levels: Sequence[float] = LEVELS,
) -> Uncertainty:
    """Learn intervals and probabilities for a model from its past.

    The volatility forecast that scales a fold's scores is fitted on that fold's own training rows; the one
    that is kept, on all of `past`.

    Parameters
    ----------
    past:
        Train + validation rows in time order with all stored columns, ``load_blocks(settings, ("train",
        "validation"))``; of the columns, `SCALE_COLUMNS` are used, those that are there.
    folds:
        (rows to fit on, rows to score) of each fold, positions in `past`: ``load_split(settings).folds``.
    out_of_fold:
        The model's out-of-fold predictions of all scored rows, fold after fold, shape (m,): returns as
        fractions, or P(up) for the direction task. That is ``out_of_fold(candidate, past.take(slice(
        folds[0][1].start, folds[-1][1].stop)))``: the folds' scored rows follow each other without a gap.
    task, horizon_minutes:
        Of the label.
    levels:
        Levels of the intervals, increasing.

    Raises
    ------
    DataError
        The predictions are not one finite number a scored row, or there are too few rows.
    """
    scored = np.concatenate([np.arange(rows.start, rows.stop) for _, rows in folds])
    if out_of_fold.shape != scored.shape or not np.isfinite(out_of_fold).all():
        msg = (
            f"fit_uncertainty: got out-of-fold predictions of shape {out_of_fold.shape}, "
            f"{int((~np.isfinite(out_of_fold)).sum())} of them not finite; required: ({len(scored)},), finite"
        )
        raise DataError(msg, hint="pass the predictions of all folds' scored rows in fold order")
    past = past.select([name for name in SCALE_COLUMNS if name in past.columns])
    scale = np.concatenate([fit_scale(past.take(fit)).of(past.take(score)) for fit, score in folds])
    rows = past.take(scored)
    error = rows.y - _centre(task, out_of_fold)
    hours = int(minutes_since_open(past).max() // 60) + 1
    tracker = Tracker.start(log_scores(error, scale), hours, rows.decision_us, rows.label_end_us, levels)
    final = fit_scale(past)
    low, high = np.quantile(final.of(past), (1 / 3, 2 / 3))
    guess = _guess(task, out_of_fold, scale)
    return Uncertainty(
        task=task,
        horizon_minutes=horizon_minutes,
        scale=final,
        tracker=tracker,
        calibration=fit_calibration(guess, rows.y, rows.decision_us, horizon_minutes),
        constant=tuple(conformal_quantile(np.abs(error), level) for level in levels),
        cuts=(float(low), float(high)),
    )


def _centre(task: Task, prediction: FloatArray) -> FloatArray:
    """Middle of the intervals: the forecast return, or 0 where the model forecasts the direction only."""
    return prediction if task == "regression" else np.zeros(len(prediction))


def _guess(task: Task, prediction: FloatArray, scale: FloatArray) -> FloatArray:
    return normal_guess(prediction, scale) if task == "regression" else prediction
