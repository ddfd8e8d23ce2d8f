"""The features of one bar, fast: the catalog's own expressions, no more of them than one row needs.

Polars takes tens of microseconds for an operation on however short a column, and a catalog has a thousand.
So the expressions are read once as a graph (`marketray.features.tree`), and a row is computed from it on as
few values as it takes (`marketray.features.demand`). A feature with an operation that the graph does not
know is evaluated by Polars, on a tail as long as its lookback. No formula stands anywhere but in the catalog.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.features.demand import Demand
from marketray.features.kernel import known_values, with_kernel_columns
from marketray.features.tree import Graph, Unknown

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.sessions import Sessions

__all__ = ["FeatureRow", "RowPlan"]

_KEPT = 4
"""Plans that `RowPlan.of` keeps, the latest asked for: a tenth of a second each for the whole catalog."""

_TAILS = (64, 760)
"""Lookbacks at which groups end; the last group holds what looks back further. More groups cost more calls
than they save rows."""


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
    """Features that Polars evaluates together.

    Attributes
    ----------
    places:
        Where they stand in the catalog.
    names:
        Their columns.
    tail:
        Bars that the longest lookback among them needs.
    layers:
        What is evaluated, see `Catalog.layers`.
    """

    places: npt.NDArray[np.intp]
    names: tuple[str, ...]
    tail: int
    layers: tuple[tuple[pl.Expr, ...], ...]

    @classmethod
    def of(cls, catalog: Catalog, places: npt.NDArray[np.intp]) -> _Group:
        """The group of the features at these places."""
        chosen = [catalog.features[i] for i in places]
        names = tuple(f.name for f in chosen)
        return cls(places, names, max(f.lookback for f in chosen), catalog.layers_of(names))

    def last(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The last row's values, NaN where they are missing."""
        frame = frame.tail(self.tail)
        for layer in self.layers:
            frame = frame.with_columns_seq(layer)  # threads cost more than such short columns
        return np.array(frame.select(self.names).row(-1), dtype=np.float64)


class RowPlan:
    """What can be prepared once for a catalog, so that a row costs as little as possible.

    Parameters
    ----------
    catalog:
        Its features are computed, all of them.
    """

    _latest: ClassVar[tuple[RowPlan, ...]] = ()

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._names = catalog.names
        self._lookbacks = np.array([f.lookback for f in catalog.features], dtype=np.int64)
        self._places, self._demand = self._compiled()
        others = np.setdiff1d(np.arange(len(self._names)), self._places)
        numbers = np.searchsorted(_TAILS, self._lookbacks[others])
        self._groups = [_Group.of(catalog, others[numbers == k]) for k in np.unique(numbers)]

    def _compiled(self) -> tuple[npt.NDArray[np.intp], Demand]:
        """Where the features stand whose operations are all known, and the program that computes them."""
        graph = Graph({e.meta.output_name(): e for layer in self.catalog.layers for e in layer})
        places, wanted = [], []
        for i, feature in enumerate(self.catalog.features):
            with suppress(Unknown):
                wanted.append((graph.column(feature.name), feature.lookback))
                places.append(i)
        return np.array(places, dtype=np.intp), Demand(graph, wanted)

    @classmethod
    def of(cls, catalog: Catalog) -> RowPlan:
        """The plan of this very catalog, made once: plans have no state, so all may share one."""
        kept = next((plan for plan in cls._latest if plan.catalog is catalog), None) or cls(catalog)
        cls._latest = (kept, *(plan for plan in cls._latest if plan is not kept))[:_KEPT]
        return kept

    @property
    def by_polars(self) -> tuple[str, ...]:
        """Features whose expressions Polars evaluates, because the graph lacks one of their operations."""
        return tuple(name for group in self._groups for name in group.names)

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
