"""How large the label will probably be: a volatility forecast of every row, known at its decision.

The mean absolute label is log-linear in trailing volatilities and in the time since the session's open:

    E|y| = level · exp(Σⱼ slopeⱼ · (ln vⱼ − centreⱼ) + seasonal(minutes since the open)),

with `seasonal` linear between knots half an hour apart. It is fitted by the quasi-likelihood
Σ (ln μ + |y| / μ), that of a Gamma regression with log link, which needs no distribution but the right mean
and takes labels of zero as they are. Where the settings leave out every trailing volatility, the time of the
session alone is left, and `ScaleForecast.method` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = ["SCALE_COLUMNS", "ScaleForecast", "fit_scale", "minutes_since_open"]

FloatArray = npt.NDArray[np.float64]

SCALE_COLUMNS = (
    *("realized_volatility_5", "realized_volatility_20", "realized_volatility_60", "realized_volatility_120"),
    *("volatility_20", "volatility_50"),  # the seed-compatible catalog's
)
"""Trailing volatilities to learn from, those of them that a dataset has."""

_KNOT_MINUTES = 30.0
_ROWS = 30_000
_TAIL = 0.001
_PRIOR_ROWS = 1.0
_STEPS = 60
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ScaleForecast:
    """A fitted volatility forecast.

    Attributes
    ----------
    columns:
        Trailing volatilities it reads, in order, k of them.
    level:
        Mean absolute label of the rows it was fitted on, a fraction.
    lowest, highest:
        Each column is clipped to these, its 0.1 % and 99.9 % quantiles; shape (k,).
    centres, slopes:
        Mean of each column's logarithm, which also stands in for a missing value, and its coefficient.
    seasonal:
        Log-effect at 0, 30, 60 … minutes since the session's open; constant beyond the last.
    """

    columns: tuple[str, ...]
    level: float
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    centres: tuple[float, ...]
    slopes: tuple[float, ...]
    seasonal: tuple[float, ...]

    def __call__(self, values: npt.ArrayLike, minutes: npt.ArrayLike) -> FloatArray:
        """Expected absolute label, a fraction above 0, shape (n,).

        Parameters
        ----------
        values:
            The columns of `columns`, NaN where missing, shape (n, k).
        minutes:
            Minutes from the session's open to the decision, shape (n,).
        """
        since = np.asarray(minutes, dtype=np.float64)
        given = np.asarray(values, dtype=np.float64).reshape(len(since), len(self.columns))
        knots = _KNOT_MINUTES * np.arange(len(self.seasonal))
        logs = _logs(given, np.array(self.lowest), np.array(self.highest), np.array(self.centres))
        seasonal = np.interp(since, knots, self.seasonal)
        return np.asarray(self.level * np.exp(logs @ np.array(self.slopes) + seasonal), dtype=np.float64)

    def of(self, block: Block) -> FloatArray:
        """The forecast of every row of a block that has the columns, shape (n,)."""
        return self(block.select(self.columns).values, minutes_since_open(block))

    @property
    def method(self) -> str:
        """What it is made from, in words."""
        if not self.columns:
            return "time since the session's open alone (the dataset has no trailing volatility)"
        return f"{', '.join(self.columns)} and the time since the session's open"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "knot_minutes": _KNOT_MINUTES}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ScaleForecast:
        """The inverse of `to_json`."""
        columns = tuple(str(name) for name in value["columns"])
        lists = ("lowest", "highest", "centres", "slopes", "seasonal")
        numbers = {name: tuple(float(x) for x in value[name]) for name in lists}
        return cls(columns=columns, level=float(value["level"]), **numbers)


def minutes_since_open(block: Block) -> FloatArray:
    """Minutes from the session's open to each decision, shape (n,)."""
    return (block.decision_us - block.session_open_us) / 60e6


def fit_scale(block: Block, columns: Sequence[str] = SCALE_COLUMNS) -> ScaleForecast:
    """Fit the volatility forecast on training rows.

    Labels overlap, so that neighbours tell little new: of a long block only every n-th row is used.

    Parameters
    ----------
    block:
        Training rows.
    columns:
        Trailing volatilities to learn from; those that the block lacks, or that are never positive, are
        left out.

    Raises
    ------
    DataError
        There are fewer than two rows, or every label is zero.

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, chapter 8 (constant coefficient of variation).
    """
    size = np.abs(block.y)
    if len(size) < 2 or not size.any():
        msg = f"fit_scale: got {len(size)} rows with {int(np.count_nonzero(size))} labels other than zero; "
        raise DataError(msg + "required: at least 2 rows, not all zero", hint="check the labels")
    rows = slice(None, None, max(1, len(block) // _ROWS))
    known = [name for name in columns if name in block.columns]
    values = block.select(known).values[rows].astype(np.float64)
    positive = [bool((column > 0).any()) for column in values.T]
    values = values[:, positive]
    lowest = np.array([np.quantile(column[column > 0], _TAIL) for column in values.T])
    highest = np.array([np.quantile(column[column > 0], 1 - _TAIL) for column in values.T])
    clipped = np.log(np.clip(values, lowest, highest))
    centres = np.nanmean(clipped, axis=0) if values.shape[1] else np.empty(0)
    seasons = _hats(minutes_since_open(block)[rows])
    design = np.hstack([_logs(values, lowest, highest, centres), seasons])
    level = float(size[rows].mean()) or float(size.mean())
    coefficients = _log_linear_mean(design, size[rows] / level)
    split = values.shape[1]
    return ScaleForecast(
        columns=tuple(name for name, has in zip(known, positive, strict=True) if has),
        level=level,
        lowest=tuple(lowest.tolist()),
        highest=tuple(highest.tolist()),
        centres=tuple(centres.tolist()),
        slopes=tuple(coefficients[:split].tolist()),
        seasonal=tuple(coefficients[split:].tolist()),
    )


def _logs(values: FloatArray, lowest: FloatArray, highest: FloatArray, centres: FloatArray) -> FloatArray:
    """Centred logarithms; a missing value counts as the centre."""
    return np.nan_to_num(np.log(np.clip(values, lowest, highest)) - centres, nan=0.0)


def _hats(minutes: FloatArray) -> FloatArray:
    """Weights of the two knots around each time, so that ``weights @ seasonal`` interpolates, (n, knots)."""
    place = minutes / _KNOT_MINUTES
    left = np.floor(place).astype(np.intp)
    weights = np.zeros((len(minutes), int(left.max()) + 2))
    rows = np.arange(len(minutes))
    weights[rows, left] = 1 - (place - left)
    weights[rows, left + 1] = place - left
    return weights


def _log_linear_mean(design: FloatArray, size: FloatArray) -> FloatArray:
    """Minimise Σ (ln μ + size / μ), ln μ = design @ b, by Newton's method; the function is convex in b.

    One row's worth of a prior at b = 0 decides what the data do not: knots without rows, columns alike.
    """

    def loss(b: FloatArray) -> float:
        log_mean = design @ b
        with np.errstate(over="ignore"):  # a step far too long; it is halved
            return float(np.sum(log_mean + size * np.exp(-log_mean)) + 0.5 * _PRIOR_ROWS * b @ b)

    b = np.zeros(design.shape[1])
    current = loss(b)
    for _ in range(_STEPS):
        ratio = size * np.exp(-(design @ b))
        gradient = design.T @ (1 - ratio) + _PRIOR_ROWS * b
        hessian = (design * ratio[:, None]).T @ design + _PRIOR_ROWS * np.eye(len(b))
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while not (proposed := loss(b - length * step)) <= current:
            length /= 2
        b = b - length * step
        if current - proposed <= _TOLERANCE * abs(current):
            break
        current = proposed
    return b
