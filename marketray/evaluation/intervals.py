"""Prediction intervals: split-conformal widths that keep adapting to the labels that have ended.

An interval is f ± s · exp(θ), with the forecast f and the volatility forecast s of its row. θ begins at the
split-conformal quantile of the log-scores ln(|y − f| / s) of out-of-fold rows and is then tracked online:
every ended label moves it up where it was missed and down where it was covered,

    θ ← θ + η (missed − (1 − level)),

once for all rows, once for those of the same hour of the session and once for those of the same third of the
volatility forecast. The three effects add up, so that hours, calm and wild times keep their coverage too.
This is quantile tracking, the P part of conformal PID control, on log-scores: adaptive conformal inference
whose step acts on the width and not on the level, so that no interval is ever infinite. A label counts for a
decision at t only if it has ended by t. Labels overlap; η is a step for one label's worth of rows, divided by
the number of rows that share a label's time.

References
----------
Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World (split-conformal quantile). Gibbs
and Candès (2021), Adaptive conformal inference under distribution shift, NeurIPS. Angelopoulos, Candès and
Tibshirani (2023), Conformal PID control for time series prediction, NeurIPS, section 2.2. Angelopoulos,
Jordan and Tibshirani (2025), Gradient equilibrium in online learning (steps by group: coverage by group).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = [
    "LEVELS",
    "TERCILES",
    "Groups",
    "Tracker",
    "conformal_quantile",
    "interval_figures",
    "log_scores",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVELS = (0.5, 0.8, 0.95)
"""Levels of the intervals."""

STEP = 0.02
"""η of all rows together: the move of the log-width between a label covered and a label missed."""

HOUR_STEP = 0.1
"""η of the rows of one hour of the session, which sees one label in about twenty."""

TERCILE_STEP = 0.02
"""η of the rows of one third of the volatility forecast."""

TERCILES = ("low", "middle", "high")
"""The thirds of the volatility forecast."""

_SMALLEST = 1e-6


@dataclass(frozen=True)
class Groups:
    """What each row belongs to: `hour` of the session and `tercile` of volatility, both (n,) from 0."""

    hour: IntArray
    tercile: IntArray

    @classmethod
    def of(cls, minutes: FloatArray, scale: FloatArray, cuts: tuple[float, float]) -> Groups:
        """By the minutes since the session's open, and by the forecast's place between the cuts."""
        place = np.searchsorted(cuts, scale, side="right")
        return cls((minutes // 60).astype(np.int64), place.astype(np.int64))


def log_scores(error: npt.ArrayLike, scale: npt.ArrayLike) -> FloatArray:
    """ln(|error| / scale), shape (n,); at least ln 1e-6, where a forecast is exact."""
    ratio = np.abs(np.asarray(error, dtype=np.float64)) / np.asarray(scale, dtype=np.float64)
    return np.log(np.maximum(ratio, _SMALLEST))


def conformal_quantile(scores: npt.ArrayLike, level: float) -> float:
    """The ⌈(n + 1) · level⌉-th smallest of n scores: a further score is below it with P ≥ level.

    Raises
    ------
    DataError
        There are too few scores for the level.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    rank = int(np.ceil((len(ordered) + 1) * level))
    if rank > len(ordered):
        least = int(np.ceil(level / (1 - level)))
        msg = f"conformal_quantile: got {len(ordered)} scores for level {level:g}; required: at least {least}"
        raise DataError(msg, hint="use more out-of-fold rows, or leave out this level")
    return float(ordered[rank - 1])


@dataclass(frozen=True)
class Tracker:
    """Log-widths θ of all levels, as of the last label that has ended: the sum of three effects.

    Attributes
    ----------
    levels:
        L levels, increasing.
    base:
        Effect of all rows, by level.
    hours:
        Effects of hour 0, 1, … of the session, by level; a later hour counts as the last.
    terciles:
        Effects of the thirds of the volatility forecast, by level.
    overlap:
        Rows that share a label's time: the steps are divided by it.
    as_of_us:
        End of the last label it knows, microseconds since the epoch, UTC.
    """

    levels: tuple[float, ...]
    base: tuple[float, ...]
    hours: tuple[tuple[float, ...], ...]
    terciles: tuple[tuple[float, ...], ...]
    overlap: float
    as_of_us: int

    @classmethod
    def start(
        cls,
        scores: FloatArray,
        hours: int,
        decision_us: IntArray,
        label_end_us: IntArray,
        levels: Sequence[float] = LEVELS,
    ) -> Tracker:
        """Begin at the split-conformal quantiles of out-of-fold scores, without effects of groups.

        Parameters
        ----------
        scores:
            Log-scores of purged out-of-fold rows in time order, shape (n,).
        hours:
            Hours of the longest session.
        decision_us, label_end_us:
            Decision times and label ends of these rows, microseconds since the epoch, UTC, shape (n,).

        Raises
        ------
        DataError
            There are too few rows for a level.
        """
        shared = np.searchsorted(decision_us, label_end_us) - np.arange(len(decision_us))
        return cls(
            levels=tuple(levels),
            base=tuple(conformal_quantile(scores, level) for level in levels),
            hours=((0.0,) * hours,) * len(levels),
            terciles=((0.0,) * len(TERCILES),) * len(levels),
            overlap=max(1.0, float(np.median(shared))),
            as_of_us=int(label_end_us.max()),
        )

    def factors(self, hour: int, tercile: int) -> FloatArray:
        """Half widths over the volatility forecast for one row of these groups, by level, shape (L,)."""
        place = min(hour, len(self.hours[0]) - 1)
        effects = zip(self.base, self.hours, self.terciles, strict=True)
        theta = [base + hours[place] + terciles[tercile] for base, hours, terciles in effects]
        return np.exp(np.maximum.accumulate(theta))  # a wider level is never narrower

    def walk(
        self, scores: FloatArray, groups: Groups, decision_us: IntArray, label_end_us: IntArray
    ) -> tuple[FloatArray, Tracker]:
        """Go through rows in time order; each row's widths come from the labels that ended by its decision.

        Parameters
        ----------
        scores:
            Log-scores of the rows, shape (n,).
        groups:
            Of the rows.
        decision_us, label_end_us:
            Decision times, increasing, and label ends, microseconds since the epoch, UTC, shape (n,).

        Returns
        -------
        tuple
            Half widths over the volatility forecast, shape (n, L), and the tracker once all these labels have
            ended.

        Raises
        ------
        DataError
            The rows are not in time order, or begin before the labels known already have ended.
        """
        _require_in_order(decision_us, label_end_us, self.as_of_us)
        places = np.minimum(groups.hour, len(self.hours[0]) - 1).tolist()
        known = np.searchsorted(label_end_us, decision_us, side="right").tolist()
        rows = (scores.tolist(), places, groups.tercile.tolist(), known)
        found = [self._walk_level(k, *rows) for k in range(len(self.levels))]
        thetas, base, hours, terciles = zip(*found, strict=True)
        end = int(label_end_us.max())
        after = replace(self, base=base, hours=hours, terciles=terciles, as_of_us=end)
        return np.exp(np.maximum.accumulate(np.array(thetas), axis=0)).T, after

    def _walk_level(
        self, k: int, scores: list[float], hour: list[int], tercile: list[int], known: list[int]
    ) -> tuple[list[float], float, tuple[float, ...], tuple[float, ...]]:
        """θ of every row at level k, and the effects at the end; `known` counts the labels ended by then."""
        base, hours, terciles = self.base[k], list(self.hours[k]), list(self.terciles[k])
        missed, covered = self.levels[k] / self.overlap, (self.levels[k] - 1) / self.overlap
        thetas: list[float] = []
        done = 0
        for i in range(len(scores) + 1):
            ended = known[i] if i < len(scores) else len(scores)
            for j in range(done, ended):
                move = missed if scores[j] > thetas[j] else covered
                base += STEP * move
                hours[hour[j]] += HOUR_STEP * move
                terciles[tercile[j]] += TERCILE_STEP * move
            done = ended
            if i < len(scores):
                thetas.append(base + hours[hour[i]] + terciles[tercile[i]])
        return thetas, base, tuple(hours), tuple(terciles)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tracker:
        """The inverse of `to_json`."""

        def table(name: str) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(float(x) for x in effects) for effects in value[name])

        return cls(
            levels=tuple(float(x) for x in value["levels"]),
            base=tuple(float(x) for x in value["base"]),
            hours=table("hours"),
            terciles=table("terciles"),
            overlap=float(value["overlap"]),
            as_of_us=int(value["as_of_us"]),
        )


def _require_in_order(decision_us: IntArray, label_end_us: IntArray, as_of_us: int) -> None:
    if len(decision_us) == 0:
        msg = "Tracker.walk: got no rows; required: at least 1"
        raise DataError(msg)
    for name, times in (("decision_us", decision_us), ("label_end_us", label_end_us)):
        if (np.diff(times) < 0).any():
            msg = f"Tracker.walk: {name} is not in time order; required: rows sorted by decision time"
            raise DataError(msg, hint="pass the rows as the dataset stores them")
    if (label_end_us <= decision_us).any() or decision_us[0] < as_of_us:
        msg = (
            f"Tracker.walk: the first decision is at {decision_us[0]} us, the labels known reach to "
            f"{as_of_us} us; required: later decisions, and labels that end after their decision"
        )
        raise DataError(msg, hint="walk the splits in time order, each once, with the gaps between them")


def interval_figures(
    y: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, level: float
) -> dict[str, float | None]:
    """How good intervals are.

    Parameters
    ----------
    y, low, high:
        Labels and the intervals' ends, fractions, shape (n,). Ends may be infinite.
    level:
        Their level.

    Returns
    -------
    dict
        coverage; target; mean_width_pct; winkler_pct, mean of width + 2/(1 − level) · distance of a missed
        label; pinball_pct, mean pinball loss of both ends as quantiles (1 ∓ level)/2; infinite_share. Where
        an interval is infinite, the means over all rows are None.

    References
    ----------
    Winkler (1972), A decision-theoretic approach to interval estimation, JASA 67. Gneiting and Raftery
    (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102, section 6.2. Koenker and
    Bassett (1978), Regression quantiles, Econometrica 46 (pinball loss).
    """
    labels, bottom, top = (np.asarray(a, dtype=np.float64) for a in (y, low, high))
    infinite = ~(np.isfinite(bottom) & np.isfinite(top))
    found: dict[str, float | None] = {
        "coverage": float(np.mean((labels >= bottom) & (labels <= top))),
        "target": level,
        "mean_width_pct": None,
        "winkler_pct": None,
        "pinball_pct": None,
        "infinite_share": float(infinite.mean()),
    }
    if not infinite.any():
        missed = np.maximum(bottom - labels, 0) + np.maximum(labels - top, 0)
        tail = (1 - level) / 2
        pinball = _pinball(labels, bottom, tail) + _pinball(labels, top, 1 - tail)
        found["mean_width_pct"] = 100 * float(np.mean(top - bottom))
        found["winkler_pct"] = 100 * float(np.mean(top - bottom + missed / tail))
        found["pinball_pct"] = 100 * pinball / 2
    return found


def _pinball(labels: FloatArray, quantile: FloatArray, share: float) -> float:
    gap = labels - quantile
    return float(np.mean(np.maximum(share * gap, (share - 1) * gap)))
