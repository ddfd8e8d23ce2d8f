"""Features with fitted parameters: columns that are made from one feature and its training values.

A stateless feature is computed once and stored. A fitted one (a volatility regime, a percentile rank)
depends on which rows count as training, so it is never stored: the definition travels with the dataset,
its parameters are fitted on the training rows of each fold and of the final fit, and they are kept in the
model, which appends the column to the stored ones by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.errors import ModelError
from marketray.features.fits import Fit

__all__ = ["Extension", "FittedColumn", "FittedFeature", "fit_columns"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedFeature:
    """Definition of a fitted feature.

    Attributes
    ----------
    name, group:
        Unique name, and the group that settings switch.
    of:
        The stateless feature of the catalog that it is made from.
    fit:
        What is fitted on the training values of `of`, and how it is applied.
    unit:
        For people.
    source:
        Where the definition comes from; no part of its identity.
    """

    name: str
    group: str
    of: str
    fit: Fit
    unit: str
    source: str = field(default="", compare=False)

    @property
    def formula(self) -> str:
        """The definition in words."""
        return self.fit.formula(self.of)

    def to_json(self) -> dict[str, Any]:
        """All but the source."""
        return {
            "name": self.name,
            "group": self.group,
            "of": self.of,
            "fit": self.fit.to_json(),
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FittedFeature:
        """The definition that `to_json` described."""
        return cls(**{**value, "fit": Fit.from_json(value["fit"])})


@dataclass(frozen=True)
class FittedColumn:
    """A fitted feature with its parameters.

    Raises
    ------
    ModelError
        The parameters are not as many finite numbers as the fit needs.
    """

    name: str
    of: str
    fit: Fit
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parameters) != self.fit.size or not np.isfinite(self.parameters).all():
            msg = (
                f"fitted feature {self.name!r}: got the parameters {self.parameters}; required: "
                f"{self.fit.size} finite numbers for {self.fit}"
            )
            raise ModelError(msg, hint="train the model again")

    @cached_property
    def _array(self) -> Float64Array:
        return np.array(self.parameters, np.float64)

    def apply(self, values: Float32Array) -> Float64Array:
        """The column for values of `of`, shape (n,)."""
        return self.fit.apply(values.astype(np.float64), self._array)

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` reads."""
        parameters = list(self.parameters)
        return {"name": self.name, "of": self.of, "fit": self.fit.to_json(), "parameters": parameters}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FittedColumn:
        """The column that `to_json` described."""
        return cls(value["name"], value["of"], Fit.from_json(value["fit"]), tuple(value["parameters"]))


def fit_columns(
    features: Sequence[FittedFeature], columns: Sequence[str], values: Float32Array
) -> tuple[FittedColumn, ...]:
    """Fit every feature on training rows.

    Parameters
    ----------
    columns, values:
        Names of the stored columns, and the training rows alone, shape (n, p), NaN where missing.

    Raises
    ------
    ModelError
        A feature is made from a column that is not there, or that holds no value in these rows.
    """
    made = []
    for feature in features:
        if feature.of not in columns:
            msg = (
                f"fitted feature {feature.name!r}: of={feature.of!r} is not among the {len(columns)} columns"
            )
            raise ModelError(msg, hint="run the dataset stage again")
        training = values[:, columns.index(feature.of)].astype(np.float64)
        training = training[~np.isnan(training)]
        if not len(training):
            msg = (
                f"fitted feature {feature.name!r}: {feature.of} has no value in the {len(values)} training "
                "rows; required: one at least"
            )
            raise ModelError(
                msg, hint=f"add {feature.name} to features.exclude, or start where it has values"
            )
        made.append(FittedColumn(feature.name, feature.of, feature.fit, feature.fit.fit(training)))
    return tuple(made)


class Extension:
    """Chosen stored columns followed by fitted ones.

    Parameters
    ----------
    columns:
        Names of the columns it will be given.
    raw:
        Which of them it keeps, in order.
    fitted:
        The columns it appends.
    """

    def __init__(
        self, columns: Sequence[str], raw: Sequence[str], fitted: Sequence[FittedColumn] = ()
    ) -> None:
        place = {name: i for i, name in enumerate(columns)}
        self._kept = np.array([place[name] for name in raw], np.intp)
        self._fitted = [(place[column.of], column) for column in fitted]

    def __call__(self, values: Float32Array) -> Float32Array:
        """Rows (n, len(raw) + len(fitted)), C-contiguous, for rows (n, len(columns))."""
        if not self._fitted:
            return np.ascontiguousarray(values[:, self._kept])
        kept = len(self._kept)
        out = np.empty((len(values), kept + len(self._fitted)), np.float32)
        out[:, :kept] = values[:, self._kept]
        for i, (place, column) in enumerate(self._fitted, kept):
            out[:, i] = column.apply(values[:, place])
        return out
