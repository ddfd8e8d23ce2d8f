"""Calibrated probabilities of the direction, and how reliable they are.

A forecast becomes a first guess p of P(up): that of a normal label with the forecast as its mean and the
volatility forecast as its mean absolute deviation, or a direction model's own P(up). Two-parameter beta
calibration on out-of-fold rows makes it a probability:

    logit P(up) = intercept + slope · (logit p − centre).

Both coefficients are shrunk by what their overlap-robust standard error says of them,
b · max(0, 1 − (2 se / b)²): what lies within two standard errors of 0 is none, and so is a negative slope. A
model without directional skill therefore says its base rate, and that is one half unless the past
clearly says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.significance import hac_standard_error

__all__ = ["Calibration", "fit_calibration", "normal_guess", "reliability"]

FloatArray = npt.NDArray[np.float64]

_TAIL = 0.005
_CLOSEST = 1e-6
_STEPS = 50
_ERRORS = 2.0
_PRIOR = np.diag([0.0, 1.0])  # one row's worth against a slope, which bounds it where labels are separable


def normal_guess(forecast: npt.ArrayLike, scale: npt.ArrayLike) -> FloatArray:
    """P(label > 0) of normal labels with mean `forecast` and mean absolute deviation `scale`, shape (n,)."""
    from scipy.special import ndtr

    deviation = np.asarray(scale, dtype=np.float64) * np.sqrt(np.pi / 2)
    return np.asarray(ndtr(np.asarray(forecast, dtype=np.float64) / deviation), dtype=np.float64)


@dataclass(frozen=True)
class Calibration:
    """A fitted beta calibration with equal powers.

    Attributes
    ----------
    intercept, slope, centre:
        See `marketray.evaluation.calibration`.
    lowest, highest:
        Logits of the guess are clipped to these, the 0.5 % and 99.5 % quantiles it was fitted on.
    flat_share:
        Share of labels that are exactly 0: neither up nor down.
    base_rate:
        Share of labels above 0 on the rows it was fitted on.
    """

    intercept: float
    slope: float
    centre: float
    lowest: float
    highest: float
    flat_share: float
    base_rate: float

    def __call__(self, guess: npt.ArrayLike) -> FloatArray:
        """P(up) of guessed probabilities, shape (n,)."""
        logits = np.clip(_logit(guess), self.lowest, self.highest)
        return _expit(self.intercept + self.slope * (logits - self.centre))

    def confidence(self, probability_up: float, direction: str) -> float:
        """P(label has this direction), direction up, down or flat."""
        down = max(0.0, 1 - probability_up - self.flat_share)
        return {"up": probability_up, "down": down, "flat": self.flat_share}[direction]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`."""
        return cls(**{name: float(value[name]) for name in cls.__dataclass_fields__})


def fit_calibration(
    guess: npt.ArrayLike, y: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int
) -> Calibration:
    """Fit on purged out-of-fold rows.

    Parameters
    ----------
    guess:
        Guessed P(up), shape (n,).
    y:
        Labels, fractions; above 0 is up; shape (n,).
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    horizon_minutes:
        Label horizon, over which rows overlap.

    Raises
    ------
    DataError
        The arrays do not fit together, or all labels go up or none does.

    References
    ----------
    Kull, Silva Filho and Flach (2017), Beta calibration, AISTATS (the map with a = b, which leaves the logit
    linear). Breiman (1995), Better subset regression using the nonnegative garrote, Technometrics 37 (the
    shrinkage).
    """
    logits, labels = _logit(guess), np.asarray(y, dtype=np.float64)
    up = (labels > 0).astype(np.float64)
    if logits.shape != labels.shape or not 0 < up.sum() < len(up):
        msg = (
            f"fit_calibration: got {len(logits)} guesses for {len(up)} labels, {int(up.sum())} of them up; "
            "required: one guess a label, and labels of both directions"
        )
        raise DataError(msg, hint="use a longer history")
    lowest, highest = (float(q) for q in np.quantile(logits, (_TAIL, 1 - _TAIL)))
    clipped = np.clip(logits, lowest, highest)
    centre = float(clipped.mean())
    rate = float(up.mean())
    level = float(_logit(rate))
    error = hac_standard_error(up, np.asarray(decision_us), horizon_minutes) / (rate * (1 - rate))
    intercept = _shrunk(level, error)
    slope = _slope(clipped - centre, up, np.asarray(decision_us), horizon_minutes)
    flat = float(np.mean(labels == 0))
    return Calibration(intercept, slope, centre, lowest, highest, flat, rate)


def reliability(
    probability_up: npt.ArrayLike, y: npt.ArrayLike, base_rate: float, bins: int = 10
) -> dict[str, Any]:
    """How often what was given a probability happened.

    Parameters
    ----------
    probability_up:
        Calibrated P(up), shape (n,).
    y:
        Labels, fractions; above 0 is up; shape (n,).
    base_rate:
        The constant probability to compare with: the past's share of ups.
    bins:
        Most bins, of about equal counts; equal probabilities share a bin.

    Returns
    -------
    dict
        ``probability_up``: bins (low, high, n, mean_probability, observed) in order; ``brier`` and
        ``brier_base``, mean squared errors of the probability and of the base rate; ``ece``, the mean over
        rows of |mean_probability − observed| of their bin.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
    Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning.
    """
    given, up = np.asarray(probability_up, dtype=np.float64), np.asarray(y, dtype=np.float64) > 0
    edges = np.unique(np.quantile(given, np.linspace(0, 1, bins + 1)))
    place = np.searchsorted(edges[1:-1], given, side="right")
    table = []
    for k in np.unique(place):
        inside = given[place == k]
        table.append(
            {
                "low": float(inside.min()),
                "high": float(inside.max()),
                "n": len(inside),
                "mean_probability": float(inside.mean()),
                "observed": float(up[place == k].mean()),
            }
        )
    off = [row["n"] * abs(row["mean_probability"] - row["observed"]) for row in table]
    return {
        "probability_up": table,
        "brier": float(np.mean((given - up) ** 2)),
        "brier_base": float(np.mean((base_rate - up) ** 2)),
        "ece": float(sum(off) / len(given)),
    }


def _slope(x: FloatArray, up: FloatArray, decision_us: npt.NDArray[np.int64], horizon_minutes: int) -> float:
    """Slope of a logistic regression of `up` on centred `x`, shrunk; never below 0."""
    if np.ptp(x) == 0:
        return 0.0
    spread = float(x.std())
    design = np.column_stack([np.ones_like(x), x / spread])
    b = np.array([float(_logit(up.mean())), 0.0])
    for _ in range(_STEPS):
        p = _expit(design @ b)
        information = (design * (p * (1 - p))[:, None]).T @ design + _PRIOR
        step = np.linalg.solve(information, design.T @ (up - p) - _PRIOR @ b)
        b = b + step
        if np.abs(step).max() < 1e-10:
            break
    p = _expit(design @ b)
    influence = (design * (up - p)[:, None]) @ np.linalg.inv(information / len(x))[1]
    error = hac_standard_error(influence, decision_us, horizon_minutes)
    return _shrunk(max(0.0, float(b[1])), error) / spread


def _shrunk(value: float, error: float) -> float:
    """Nothing within `_ERRORS` standard errors of 0, nearly all of what lies far beyond."""
    return 0.0 if value == 0 else value * max(0.0, 1 - (_ERRORS * error / value) ** 2)


def _logit(p: npt.ArrayLike) -> FloatArray:
    inside = np.clip(np.asarray(p, dtype=np.float64), _CLOSEST, 1 - _CLOSEST)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)


def _expit(x: npt.ArrayLike) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x, dtype=np.float64))), dtype=np.float64)
