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

from marketray.features.demand import Demand
from marketray.features.kernel import known_values, with_kernel_columns
from marketray.features.tree import Graph, Unknown

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.features.definition import Feature
    from marketray.sessions import Sessions

__all__ = ["FeatureRow", "RowPlan"]

_TAILS = (64, 760)
"""Lookbacks at which groups end; the last group holds what looks back further. More groups cost more calls
than they save rows: on a day of bars most expressions cost little more than to be called."""


_LONGEST_LAG = 128
"""Lookback up to which an expression is compared with a shift, so that lags are picked, not computed."""


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
    """Features evaluated together.

    Attributes
    ----------
    places:
        Where they stand in the catalog.
    cells:
        Where each value is found in the evaluated tail: a column, and how many bars before its end.
    tail:
        Bars that the longest lookback among them needs.
    layers:
        What is evaluated, see `Catalog.layers`.
    """

    places: npt.NDArray[np.intp]
    cells: tuple[tuple[str, int], ...]
    tail: int
    layers: tuple[tuple[pl.Expr, ...], ...]

    @classmethod
    def of(cls, catalog: Catalog, places: npt.NDArray[np.intp]) -> _Group:
        """The group of the features at these places."""
        chosen = [catalog.features[i] for i in places]
        cells = tuple(_cell(feature) for feature in chosen)
        layers = catalog.layers_of({column for column, _ in cells})
        return cls(places, cells, max(f.lookback for f in chosen), layers)

    def last(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The last row's values, NaN where they are missing."""
        frame = frame.tail(self.tail)
        for layer in self.layers:
            frame = frame.with_columns_seq(layer)  # threads cost more than such short columns
        end = dict(zip(frame.columns, frame.row(-1), strict=True))
        values = [end[column] if not ago else _value(frame[column], ago) for column, ago in self.cells]
        return np.array(values, dtype=np.float64)


def _cell(feature: Feature) -> tuple[str, int]:
    """The feature's own column; of a mere lag, the column that it is a lag of, and by how many bars."""
    roots = feature.expression.meta.root_names()
    if len(roots) == 1 and feature.lookback <= _LONGEST_LAG:
        for ago in range(feature.lookback):
            if feature.expression.meta.eq(pl.col(roots[0]).shift(ago)):
                return roots[0], ago
    return feature.name, 0


def _value(column: pl.Series, ago: int) -> float | None:
    return column[-1 - ago] if ago < len(column) else None


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
        self._lookbacks = np.array([f.lookback for f in catalog.features], dtype=np.int64)
        self._places, self._demand = self._compiled()
        numbers = np.searchsorted(_TAILS, self._lookbacks)
        numbers[self._places] = -1
        self._groups = [
            _Group.of(catalog, np.flatnonzero(numbers == k)) for k in np.unique(numbers) if k >= 0
        ]

    def _compiled(self) -> tuple[npt.NDArray[np.intp], Demand]:
        """Features whose every operation is known, and the program that computes them."""
        graph = Graph({e.meta.output_name(): e for layer in self.catalog.layers for e in layer})
        places, wanted = [], []
        for i, feature in enumerate(self.catalog.features):
            try:
                wanted.append((graph.column(feature.name), feature.lookback))
            except Unknown:
                continue
            places.append(i)
        return np.array(places, dtype=np.intp), Demand(graph, wanted)

    def evaluate(
        self, bars: pl.DataFrame, sessions: Sessions, news: pl.DataFrame | None = None
    ) -> FeatureRow:
        """Features of the last bar.

        Parameters
        ----------
        bars:
            At least one bar and, unless the history begins with them, at least `catalog.lookback`;
            otherwise as for `marketray.features.kernel.compute`.
        sessions:
            Sessions that cover the bars' whole span.
        news:
            Scored articles, as for `marketray.features.kernel.compute`.

        Raises
        ------
        DataError, SettingsError
            As `marketray.features.kernel.compute`.
        """
        frame = with_kernel_columns(self.catalog, bars, sessions, news)
        values = np.empty(len(self._names))
        values[self._places] = self._demand.last(frame)
        for group in self._groups:
            values[group.places] = group.last(frame)
        shown = known_values(values, self._lookbacks, frame["_row"][-1])
        return FeatureRow(frame["time"][-1], frame["_decision_at"][-1], self._names, shown)
