"""Kinds of fit: what is learned from a feature's training values, and how it is applied to any values.

A fit holds settings only. Its parameters are plain numbers, so that a model can store them as JSON.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from marketray.errors import ModelError, SettingsError

__all__ = ["AboveMedian", "BelowMedian", "Fit", "PercentileRank", "QuantileCuts", "StandardScore"]

Float64Array = npt.NDArray[np.float64]


class Fit(ABC):
    """How a fitted feature is made; its fields are settings, never statistics of data."""

    kind: ClassVar[str]
    unit: ClassVar[str]

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of parameters."""

    @abstractmethod
    def fit(self, values: Float64Array) -> tuple[float, ...]:
        """Parameters from the training values that are present, shape (n,), n >= 1, no NaN."""

    @abstractmethod
    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """The column for any values, shape (n,); NaN stays NaN."""

    @abstractmethod
    def formula(self, of: str) -> str:
        """The definition in words, for the feature `of`."""

    def to_json(self) -> dict[str, Any]:
        """Kind and settings."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]  # every kind is a dataclass

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Fit:
        """The fit that `to_json` described.

        Raises
        ------
        ModelError
            The kind or its settings are unknown.
        """
        settings = {name: setting for name, setting in value.items() if name != "kind"}
        try:
            made: Fit = _KINDS[value["kind"]](**settings)
        except (KeyError, TypeError, SettingsError) as e:
            msg = f"fit: got {dict(value)}; required: a kind of {sorted(_KINDS)} with its settings"
            raise ModelError(msg, hint="use the version of marketray that wrote it") from e
        return made


@dataclass(frozen=True)
class QuantileCuts(Fit):
    """Class 0 … k by k quantiles of the training values; a value equal to a cut is in the class above.

    Parameters
    ----------
    shares:
        Shares of the training values below each cut, increasing, inside (0, 1).
    """

    shares: tuple[float, ...]
    kind: ClassVar[str] = "quantile_cuts"
    unit: ClassVar[str] = "class, from 0"

    def __post_init__(self) -> None:
        shares = tuple(self.shares)
        if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 1:
            msg = f"QuantileCuts: shares={shares}; required: increasing numbers inside (0, 1)"
            raise SettingsError(msg, hint="(1/3, 2/3) makes three classes")
        object.__setattr__(self, "shares", shares)

    @property
    def size(self) -> int:
        """One cut a share."""
        return len(self.shares)

    def fit(self, values: Float64Array) -> tuple[float, ...]:
        """The cuts, linear between order statistics (Hyndman and Fan 1996, type 7)."""
        return tuple(np.quantile(values, self.shares).tolist())

    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """Number of cuts at or below each value."""
        return np.where(np.isnan(values), np.nan, np.searchsorted(parameters, values, side="right"))

    def formula(self, of: str) -> str:
        """The definition in words."""
        return f"class of {of} by its training quantiles at {', '.join(f'{s:.4g}' for s in self.shares)}"


@dataclass(frozen=True)
class PercentileRank(Fit):
    """Share of the training values below each value, values equal to it counted half.

    The training distribution is kept as quantiles at equal steps and is linear between them (Parzen 1979);
    the rank is exact to 1 / (points - 1).

    Parameters
    ----------
    points:
        Number of quantiles kept, the minimum and the maximum included.
    """

    points: int = 101
    kind: ClassVar[str] = "percentile_rank"
    unit: ClassVar[str] = "fraction"

    def __post_init__(self) -> None:
        if not isinstance(self.points, int) or self.points < 2:
            msg = f"PercentileRank: points={self.points!r}; required: a whole number, at least 2"
            raise SettingsError(msg, hint="101 keeps every percentile")

    @property
    def size(self) -> int:
        """One quantile a point."""
        return self.points

    @cached_property
    def _levels(self) -> Float64Array:
        return np.linspace(0, 1, self.points)

    def fit(self, values: Float64Array) -> tuple[float, ...]:
        """The quantiles."""
        return tuple(np.quantile(values, self._levels).tolist())

    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """Mean of the distribution function's limits from below and from above; 0 and 1 outside."""
        levels = self._levels
        above = np.interp(values, parameters, levels, left=0.0, right=1.0)
        below = 1 - np.interp(-values, -parameters[::-1], levels, left=0.0, right=1.0)
        return np.asarray((above + below) / 2, np.float64)

    def formula(self, of: str) -> str:
        """The definition in words."""
        return f"percentile rank of {of} among its training values"


@dataclass(frozen=True)
class StandardScore(Fit):
    """(value - centre) / scale of the training values; a scale of 0 counts as 1.

    Parameters
    ----------
    robust:
        Median and 1.4826 times the median absolute deviation (Rousseeuw and Croux 1993) in place of mean
        and standard deviation.
    """

    robust: bool = False
    kind: ClassVar[str] = "standard_score"
    unit: ClassVar[str] = "standard deviations"

    @property
    def size(self) -> int:
        """Centre and scale."""
        return 2

    def fit(self, values: Float64Array) -> tuple[float, ...]:
        """Centre and scale."""
        centre = float(np.median(values) if self.robust else np.mean(values))
        spread = 1.4826 * float(np.median(np.abs(values - centre))) if self.robust else float(np.std(values))
        return centre, spread if spread > 0 else 1.0

    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """Distance from the centre in scales."""
        return np.asarray((values - parameters[0]) / parameters[1], np.float64)

    def formula(self, of: str) -> str:
        """The definition in words."""
        moments = "median) / (1.4826 MAD)" if self.robust else "mean) / sd"
        return f"({of} - {moments} of its training values"


@dataclass(frozen=True)
class _Median(Fit):
    factor: float
    unit: ClassVar[str] = "0 or 1"

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int | float) or not 0 < self.factor < math.inf:
            msg = f"{type(self).__name__}: factor={self.factor!r}; required: a number above 0"
            raise SettingsError(msg, hint="1.5 compares with one and a half times the median")

    @property
    def size(self) -> int:
        """The median alone."""
        return 1

    def fit(self, values: Float64Array) -> tuple[float, ...]:
        """The median."""
        return (float(np.median(values)),)


@dataclass(frozen=True)
class AboveMedian(_Median):
    """1 where the value is above `factor` times the training median, else 0."""

    kind: ClassVar[str] = "above_median"

    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """The flag."""
        return np.where(np.isnan(values), np.nan, values > self.factor * parameters[0])

    def formula(self, of: str) -> str:
        """The definition in words."""
        return f"1 where {of} > {self.factor:g} × its training median, else 0"


@dataclass(frozen=True)
class BelowMedian(_Median):
    """1 where the value is below `factor` times the training median, else 0."""

    kind: ClassVar[str] = "below_median"

    def apply(self, values: Float64Array, parameters: Float64Array) -> Float64Array:
        """The flag."""
        return np.where(np.isnan(values), np.nan, values < self.factor * parameters[0])

    def formula(self, of: str) -> str:
        """The definition in words."""
        return f"1 where {of} < {self.factor:g} × its training median, else 0"


_KINDS: dict[str, type[Any]] = {
    fit.kind: fit for fit in (QuantileCuts, PercentileRank, StandardScore, AboveMedian, BelowMedian)
}
