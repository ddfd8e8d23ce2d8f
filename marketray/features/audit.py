"""Does a feature use the future, and is its declared lookback long enough? Decided by experiment.

Look-ahead: bars after a row are cut off, changed or deleted; the row must not change. Warm-up: bars
before a row's lookback are cut off or moved; the row must not change either. "Not change" is equality
as the laws define it: the same nulls and |a - b| <= 1e-9 max(|b|, IQR), IQR being the feature's
interquartile range over the bars of the audit. A fitted feature is fitted on the rows before the touched
bars and applied to them.
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
from marketray.features.audit_fitted import fitted_on
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
        How far ahead a changed row certainly looks: bars from the row to the first touched bar. For a
        fitted feature that is what its statistics add: at most all rows before the touched bar.
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
    catalog, bars, sessions, news:
        As `marketray.features.kernel.compute` takes them.
    """

    def __init__(
        self, catalog: Catalog, bars: pl.DataFrame, sessions: Sessions, news: pl.DataFrame | None = None
    ) -> None:
        self.catalog = catalog
        self.bars = bars
        self.sessions = sessions
        self.news = news
        self.rows = evaluate(catalog, bars, sessions, news)
        self.spreads = {name: interquartile_range(self.rows[name]) for name in catalog.names}
        for name, values in fitted_on(catalog.fitted, self.rows).items():
            self.spreads[name] = interquartile_range(pl.Series(values).fill_nan(None))

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


def evaluate(
    catalog: Catalog, bars: pl.DataFrame, sessions: Sessions, news: pl.DataFrame | None = None
) -> pl.DataFrame:
    """`compute`, with an expression's own failure as a DataError."""
    try:
        return compute(catalog, bars, sessions, news)
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
    news: pl.DataFrame | None = None,
    cuts: Sequence[int] | None = None,
    seed: int = 0,
) -> list[LookAhead]:
    """Features whose rows change when bars that had not ended at their decision, or articles that were not
    known before it, are touched; fitted features among them.

    Parameters
    ----------
    catalog:
        The features to audit.
    bars, sessions, news:
        As `compute` takes them.
    cuts:
        Positions of the first bar that is touched, each in [1, len(bars)); by default short histories,
        the end of every lookback, session edges, the largest moves and random positions.
    seed:
        Of the random positions and changes.

    Returns
    -------
    list of LookAhead
        The guilty, in catalog order, fitted features last; empty where every feature is honest.
    """
    reference = Reference(catalog, bars, sessions, news)
    chosen = _default_cuts(reference, seed) if cuts is None else sorted(cuts)
    found: dict[str, list[tuple[str, int, npt.NDArray[np.int64], Float64Array]]] = {}
    for when, cut, later, told in _experiments(reference, chosen, seed):
        for name, changed, gap in _changes(reference, evaluate(catalog, later, sessions, told).head(cut)):
            found.setdefault(name, []).append((when, cut, changed, gap))
    names = (*catalog.names, *(f.name for f in catalog.fitted))
    return [_summary(reference, name, found[name]) for name in names if name in found]


def _changes(
    reference: Reference, rows: pl.DataFrame
) -> Iterator[tuple[str, npt.NDArray[np.int64], Float64Array]]:
    """(feature, positions, size of the change) for each whose first values are not `rows`."""
    first = reference.rows.head(len(rows))
    for name in reference.catalog.names:
        got, was = rows[name], first[name]
        if got.equals(was):
            continue
        changed = np.flatnonzero(reference.excess(name, got, 0) > TOLERANCE)
        if len(changed):
            yield name, changed, np.abs((got - was).to_numpy()[changed])
        else:  # a rounding apart, which could be the other side of a fitted cut
            rows = rows.with_columns(was)
    was_fitted = fitted_on(reference.catalog.fitted, first)
    for name, values in fitted_on(reference.catalog.fitted, rows).items():
        excess = relative_excess(values, was_fitted[name], reference.spreads[name])
        changed = np.flatnonzero(excess > TOLERANCE)
        if len(changed):
            yield name, changed, np.abs(values - was_fitted[name])[changed]


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
    reference: Reference, cuts: Sequence[int], seed: int
) -> Iterator[tuple[str, int, pl.DataFrame, pl.DataFrame | None]]:
    """(what was done, first touched bar, the bars, the articles) for each change of the future."""
    bars, news = reference.bars, reference.news
    yield "repeated", bars.height, bars, news
    for cut in cuts:
        first = _first_unknown(reference, cut)
        yield "cut off", cut, bars.head(cut), None if news is None else news.head(first)
        rng = np.random.default_rng((seed, cut))
        told = None if news is None else _other_news(news, first, rng)
        yield "changed", cut, _changed(bars, cut, rng), told
        kept = _half(bars.height, cut, rng)
        yield (
            "deleted",
            cut,
            bars.filter(kept),
            None if news is None else news.filter(_half(len(news), first, rng)),
        )


def _first_unknown(reference: Reference, cut: int) -> int:
    """The first article that no row before `cut` can know."""
    if reference.news is None:
        return 0
    return int((reference.news["available_at"] < reference.rows["decision_at"][cut - 1]).sum())


def _half(height: int, start: int, rng: np.random.Generator) -> pl.Series:
    """Keep all rows before `start` and about half of the others."""
    keep = rng.random(height) < 0.5
    keep[:start] = True
    return pl.Series(keep)


def _other_news(news: pl.DataFrame, first: int, rng: np.random.Generator) -> pl.DataFrame:
    """The articles with other scores from `first` on, in another order."""
    order = np.concatenate([np.arange(first), first + rng.permutation(len(news) - first)])
    scores = news.select("positive", "negative", "neutral")[order]
    turned = pl.int_range(pl.len()) >= first
    return news.with_columns(scores.get_columns()).with_columns(
        pl.when(turned).then("negative").otherwise("positive").alias("positive"),
        pl.when(turned).then("positive").otherwise("negative").alias("negative"),
    )


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
