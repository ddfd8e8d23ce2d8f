"""The features of one bar, fast: the catalog's own expressions on tails no longer than they need.

Most features look back an hour and a few look back a day. Evaluating all of them on the longest tail
pays the longest lookback for each, so the features are put into groups by lookback, and each group is
evaluated on the tail that its members declare. There is no other formula than the catalog's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.features.kernel import known, with_kernel_columns

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.sessions import Sessions

__all__ = ["FeatureRow", "RowPlan"]

_TAILS = (64,)
"""Lookbacks at which groups end; the last group holds what looks back further. More groups cost more calls
than they save rows: on a day of bars most expressions cost little more than to be called."""


@dataclass(frozen=True)
class FeatureRow:
    """The features known at the end of one bar.

    Attributes
    ----------
    time, decision_at:
        Open and end of the bar, UTC.
    names:
        Features in catalog order.
    values:
        float64 of shape (p,); NaN where the feature table of the batch is null.
    """

    time: datetime
    decision_at: datetime
    names: tuple[str, ...]
    values: npt.NDArray[np.float64]

    def frame(self) -> pl.DataFrame:
        """The row as `marketray.features.kernel.compute` gives it."""
        stamps = {
            "time": pl.Series([self.time], dtype=pl.Datetime("us", "UTC")),
            "decision_at": pl.Series([self.decision_at], dtype=pl.Datetime("us", "UTC")),
        }
        values = pl.DataFrame(self.values.reshape(1, -1), schema=dict.fromkeys(self.names, pl.Float64))
        return pl.DataFrame(stamps).hstack(values.fill_nan(None))


@dataclass(frozen=True)
class _Group:
    """Features evaluated together: their places in the catalog, and the tail that they need."""

    names: tuple[str, ...]
    places: npt.NDArray[np.intp]
    tail: int
    layers: tuple[tuple[pl.Expr, ...], ...]

    def last(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The last row's values, NaN where they are missing."""
        frame = frame.tail(self.tail)
        for layer in self.layers:
            frame = frame.with_columns_seq(layer)  # threads cost more than such short columns
        found = dict(zip(frame.columns, frame.row(-1), strict=True))
        return np.array([found[name] for name in self.names], dtype=np.float64)


class RowPlan:
    """What can be prepared once for a catalog, so that a row costs as little as possible.

    Parameters
    ----------
    catalog:
        Its features are computed, all of them.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._names = catalog.names
        lookbacks = np.array([f.lookback for f in catalog.features], dtype=np.int64)
        self._lookbacks = pl.DataFrame({"lookback": lookbacks})
        self._groups = []
        of_group = np.searchsorted(_TAILS, lookbacks)
        for number in np.unique(of_group):
            places = np.flatnonzero(of_group == number)
            names = tuple(self._names[i] for i in places)
            self._groups.append(_Group(names, places, int(lookbacks[places].max()), catalog.layers_of(names)))

    def evaluate(self, bars: pl.DataFrame, sessions: Sessions) -> FeatureRow:
        """Features of the last bar.

        Parameters
        ----------
        bars:
            At least one bar and, unless the history begins with them, at least `catalog.lookback`;
            otherwise as for `marketray.features.kernel.compute`.
        sessions:
            Sessions that cover the bars' whole span.

        Raises
        ------
        DataError, SettingsError
            As `marketray.features.kernel.compute`.
        """
        frame = with_kernel_columns(self.catalog, bars, sessions)
        values = np.empty(len(self._names))
        for group in self._groups:
            values[group.places] = group.last(frame)
        column = self._lookbacks.with_columns(
            pl.lit(frame["_row"][-1]).alias("_row"), pl.Series("value", values)
        )
        shown = column.select(known(pl.col("value"), pl.col("lookback"))).to_series()
        return FeatureRow(frame["time"][-1], frame["_decision_at"][-1], self._names, shown.to_numpy())
