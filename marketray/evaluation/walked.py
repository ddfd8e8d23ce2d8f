"""How good intervals and probabilities were on the rows they were walked through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.evaluation.calibration import reliability
from marketray.evaluation.intervals import TERCILES, Groups, interval_figures

__all__ = ["Walked", "evaluate"]

FloatArray = npt.NDArray[np.float64]

_NAMED_LEVEL = 0.8


@dataclass(frozen=True)
class Walked:
    """Intervals and probabilities of one split's rows, as they would have been served.

    Attributes
    ----------
    y:
        Labels, fractions, shape (n,).
    levels:
        L levels.
    low, high:
        Ends of the intervals, fractions, shape (n, L).
    constant_low, constant_high:
        Those of intervals of constant width around the same forecasts, shape (n, L).
    probability_up:
        Calibrated P(y > 0), shape (n,).
    base_rate:
        The past's share of ups.
    groups:
        Hour of the session and third of the volatility forecast of each row.
    """

    y: FloatArray
    levels: tuple[float, ...]
    low: FloatArray
    high: FloatArray
    constant_low: FloatArray
    constant_high: FloatArray
    probability_up: FloatArray
    base_rate: float
    groups: Groups

    def covered(self, level: float = _NAMED_LEVEL) -> npt.NDArray[np.bool_]:
        """Whether each label lies in its interval of `level`, shape (n,)."""
        k = self.levels.index(level)
        return (self.y >= self.low[:, k]) & (self.y <= self.high[:, k])


def evaluate(splits: Mapping[str, Walked], method: str) -> dict[str, Any]:
    """The sections ``intervals`` and ``reliability`` of report.json.

    Parameters
    ----------
    splits:
        What would have been served on each split, out of `marketray.evaluation.uncertainty.Uncertainty.walk`.
    method:
        How the intervals were made, `Uncertainty.method`.

    Returns
    -------
    dict
        ``intervals``: by split, ``levels`` (see `interval_figures`, with constant_winkler_pct and
        constant_pinball_pct of the constant width beside), ``by_hour`` and ``by_volatility``; and ``method``.
        ``reliability``: by split, see `marketray.evaluation.calibration.reliability`.
    """
    intervals: dict[str, Any] = {name: _interval_section(walked) for name, walked in splits.items()}
    intervals["method"] = method
    return {
        "intervals": intervals,
        "reliability": {
            name: reliability(walked.probability_up, walked.y, walked.base_rate)
            for name, walked in splits.items()
        },
    }


def _interval_section(walked: Walked) -> dict[str, Any]:
    levels = {}
    for k, level in enumerate(walked.levels):
        plain = interval_figures(walked.y, walked.constant_low[:, k], walked.constant_high[:, k], level)
        levels[f"{100 * level:g}"] = {
            **interval_figures(walked.y, walked.low[:, k], walked.high[:, k], level),
            "constant_winkler_pct": plain["winkler_pct"],
            "constant_pinball_pct": plain["pinball_pct"],
        }
    covered, groups = walked.covered(), walked.groups
    hours = [(f"{hour:02d}", groups.hour == hour) for hour in np.unique(groups.hour)]
    terciles = [(name, groups.tercile == k) for k, name in enumerate(TERCILES)]
    return {
        "levels": levels,
        "by_hour": [_group(name, covered[rows]) for name, rows in hours],
        "by_volatility": [_group(name, covered[rows]) for name, rows in terciles],
    }


def _group(name: str, covered: npt.NDArray[np.bool_]) -> dict[str, Any]:
    if not len(covered):
        return {"name": name, "n": 0, "coverage_80": None, "reason": "no rows"}
    return {"name": name, "n": len(covered), "coverage_80": float(covered.mean())}
