"""Does a feature use the future, and is its declared lookback long enough? Decided by experiment.

Look-ahead: bars after a row are cut off, changed or deleted; the row must not change. Warm-up: bars
before a row's lookback are cut off or moved; the row must not change either. "Not change" is equality
as the laws define it: the same nulls and |a - b| <= 1e-9 max(|b|, IQR), IQR being the feature's
interquartile range over the bars of the audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.bars import VALUES
from marketray.errors import DataError
from marketray.features.catalog import Catalog
from marketray.features.kernel import compute
from marketray.features.user import FAULTS
from marketray.sessions import Sessions

__all__ = [
    "TOLERANCE",
    "LookAhead",
    "Reference",
    "evaluate",
    "interquartile_range",
    "look_ahead",
    "lookback_cuts",
    "relative_excess",
]

Float64Array = npt.NDArray[np.float64]

TOLERANCE = 1e-9
_EDGES = 12  # session edges at which the future is touched


@dataclass(frozen=True)
class LookAhead:
    """A feature whose past changes with the future.

    Attributes
    ----------
    feature:
        Its name.
    when:
        Which experiments changed it: "cut off", "changed", "deleted" (later bars), or "repeated" where
        the same bars give other values a second time.
    rows:
        Rows that changed, over all experiments.
    bars_ahead:
        How far ahead a changed row certainly looks: bars from the row to the first touched bar.
    difference:
        Largest change of a value; None where values only came or went.
    difference_in_iqr:
        The same in interquartile ranges of the feature; None where the range is 0.
    first_decision_at:
        The earliest row that changed.
    """

    feature: str
    when: tuple[str, ...]
    rows: int
    bars_ahead: int
    difference: float | None
    difference_in_iqr: float | None
    first_decision_at: datetime


class Reference:
    """Feature values of all bars, and the yardstick for differences from them.

    Parameters
    ----------
    catalog, bars, sessions:
        As `marketray.features.kernel.compute` takes them.
    """

    def __init__(self, catalog: Catalog, bars: pl.DataFrame, sessions: Sessions) -> None:
        self.catalog = catalog
        self.bars = bars
        self.sessions = sessions
        self.rows = evaluate(catalog, bars, sessions)
        self.spreads = {name: interquartile_range(self.rows[name]) for name in catalog.names}

    def excess(self, name: str, values: pl.Series, start: int) -> Float64Array:
        """`relative_excess` of `values`, the feature's at rows from `start` on, over what they were."""
        expected = self.rows[name].slice(start, len(values))
        return relative_excess(values.to_numpy(), expected.to_numpy(), self.spreads[name])


def relative_excess(got: Float64Array, expected: Float64Array, spread: float) -> Float64Array:
    """How far values are from what they should be, NaN standing for a missing one.

    Returns
    -------
    ndarray
        |a - b| / max(|b|, spread), shape (n,); infinite where one of the two is missing.
    """
    scale = np.maximum(np.abs(expected), spread)
    gap = np.abs(got - expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(gap == 0, 0.0, gap / scale)
    missing, absent = np.isnan(got), np.isnan(expected)
    return np.where(missing | absent, np.where(missing == absent, 0.0, np.inf), share)


def interquartile_range(values: pl.Series) -> float:
    """Range between the quartiles of the values that are not null; 0 where there are none."""
    low, high = values.quantile(0.25), values.quantile(0.75)
    return 0.0 if low is None or high is None else high - low


def evaluate(catalog: Catalog, bars: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    """`compute`, with an expression's own failure as a DataError."""
    try:
        return compute(catalog, bars, sessions)
    except FAULTS as e:  # also what a user's function raises inside an expression
        reason = (str(e).strip() or "no message").splitlines()[0]
        msg = f"features: an expression fails on {len(bars)} bars: {type(e).__name__}: {reason}"
        raise DataError(
            msg, hint="a feature must run on any number of bars; return null where it cannot"
        ) from e


def look_ahead(
    catalog: Catalog,
    bars: pl.DataFrame,
    sessions: Sessions,
    *,
    cuts: Sequence[int] | None = None,
    seed: int = 0,
) -> list[LookAhead]:
    """Features whose rows change when bars that had not ended at their decision are touched.

    Parameters
    ----------
    catalog:
        The features to audit.
    bars, sessions:
        As `compute` takes them.
    cuts:
        Positions of the first bar that is touched, each in [1, len(bars)); by default short histories,
        the end of every lookback, session edges, the largest moves and random positions.
    seed:
        Of the random positions and changes.

    Returns
    -------
    list of LookAhead
        The guilty, in catalog order; empty where every feature is honest.
    """
    reference = Reference(catalog, bars, sessions)
    chosen = _default_cuts(reference, seed) if cuts is None else sorted(cuts)
    found: dict[str, list[tuple[str, int, npt.NDArray[np.int64], Float64Array]]] = {}
    for when, cut, later in _experiments(bars, chosen, seed):
        rows = evaluate(catalog, later, sessions).head(cut)
        for name in catalog.names:
            was = reference.rows[name].head(cut)
            if rows[name].equals(was):
                continue
            changed = np.flatnonzero(reference.excess(name, rows[name], 0) > TOLERANCE)
            if len(changed):
                gap = np.abs((rows[name] - was).to_numpy()[changed])
                found.setdefault(name, []).append((when, cut, changed, gap))
    return [_summary(reference, name, found[name]) for name in catalog.names if name in found]


def lookback_cuts(catalog: Catalog, height: int) -> list[int]:
    """Lookbacks that end before the last of `height` bars: where a feature's first value may be filled."""
    return sorted({f.lookback for f in catalog.features if f.lookback < height})


def _default_cuts(reference: Reference, seed: int) -> list[int]:
    bars, height = reference.bars, reference.bars.height
    rng = np.random.default_rng(seed)
    cuts = set(lookback_cuts(reference.catalog, height)) | {2**k for k in range(height.bit_length())}
    moves = np.abs(np.diff(np.log(bars["close"].to_numpy()))) + 0.0
    largest = np.argsort(np.nan_to_num(moves))[-2:] + 1
    edges = 1 + np.flatnonzero(np.diff(reference.sessions.locate(bars["time"])))
    for position in (*largest, *edges[-_EDGES:]):
        cuts |= {int(position), int(position) + 1}
    cuts |= set(rng.integers(1, height, 8).tolist()) | {height - 1}
    return sorted(c for c in cuts if 1 <= c < height)


def _experiments(
    bars: pl.DataFrame, cuts: Sequence[int], seed: int
) -> Iterator[tuple[str, int, pl.DataFrame]]:
    """(what was done, first touched bar, the bars) for each change of the future."""
    yield "repeated", bars.height, bars
    for cut in cuts:
        yield "cut off", cut, bars.head(cut)
        rng = np.random.default_rng((seed, cut))
        yield "changed", cut, _changed(bars, cut, rng)
        keep = rng.random(bars.height) < 0.5
        keep[:cut] = True
        yield "deleted", cut, bars.filter(pl.Series(keep))


def _changed(bars: pl.DataFrame, cut: int, rng: np.random.Generator) -> pl.DataFrame:
    """The bars with the values from `cut` on in another order, each bar made larger or smaller."""
    later = bars.height - cut
    order = np.concatenate([np.arange(cut), cut + rng.permutation(later)])
    factor = pl.Series(np.concatenate([np.ones(cut), np.exp(rng.normal(0, 0.2, later))]))
    names = [name for name in VALUES if name in bars.columns]
    values = bars.select(names)[order].select(pl.col(name) * factor for name in names)
    return bars.with_columns(values.get_columns())


def _summary(
    reference: Reference, name: str, hits: Sequence[tuple[str, int, npt.NDArray[np.int64], Float64Array]]
) -> LookAhead:
    ahead = max(int(cut - changed.min()) for _, cut, changed, _ in hits)
    gaps = np.concatenate([gap for *_, gap in hits])
    gaps = gaps[~np.isnan(gaps)]
    largest = float(gaps.max()) if len(gaps) else None
    spread = reference.spreads[name]
    when = tuple(dict.fromkeys(what for what, *_ in hits))
    first = min(int(changed.min()) for _, _, changed, _ in hits)
    return LookAhead(
        feature=name,
        when=when,
        rows=sum(len(changed) for _, _, changed, _ in hits),
        bars_ahead=0 if when == ("repeated",) else ahead,
        difference=largest,
        difference_in_iqr=largest / spread if largest is not None and spread > 0 else None,
        first_decision_at=reference.rows["decision_at"][first],
    )
