"""Error of a feature against the bars it was given, and whether its declared lookback is enough.

A fitted feature has no lookback of its own: what it is made from is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from marketray.bars import VALUES
from marketray.features.audit import TOLERANCE, Reference, evaluate
from marketray.features.catalog import Catalog
from marketray.sessions import Sessions

__all__ = ["SHARES", "WarmUp", "warm_up"]

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Lookbacks at which errors are tabled, as shares of the declared one."""

_MOVED = {"lower": 0.95, "higher": 1.05}
_SAMPLES = 4


@dataclass(frozen=True)
class WarmUp:
    """A feature's error against the number of bars it was given.

    Attributes
    ----------
    feature, lookback:
        Its name and declared lookback, in bars.
    bars, errors:
        Numbers of bars tried and the largest |a - b| / max(|b|, IQR) at the sampled rows, b being the
        value from the whole history; infinite where only one of the two is null.
    error:
        The same at the declared lookback, where earlier bars were also moved by 5 % instead of cut off.
    enough:
        `error` <= 1e-9.
    ahead:
        Whether even all bars up to a sampled row do not give the row's value: it depends on later ones
        (or the same bars give other values each time), and no lookback is long enough.
    required:
        For a lookback that is too short: bars that were enough at the sampled rows; None where no
        number of the bars at hand was.
    """

    feature: str
    lookback: int
    bars: tuple[int, ...]
    errors: tuple[float, ...]
    error: float
    enough: bool
    ahead: bool
    required: int | None


def warm_up(
    catalog: Catalog,
    bars: pl.DataFrame,
    sessions: Sessions,
    *,
    news: pl.DataFrame | None = None,
    seed: int = 0,
) -> list[WarmUp]:
    """Measure every feature whose lookback is shorter than half of the bars.

    Parameters
    ----------
    catalog:
        The features to audit.
    bars, sessions, news:
        As `compute` takes them; the rows are sampled from the second half.
    seed:
        Of the sampled rows.

    Returns
    -------
    list of WarmUp
        In catalog order; features with a longer lookback are left out.
    """
    names = [f.name for f in catalog.features if f.lookback <= bars.height // 2]
    if not names:
        return []
    whole = Reference(catalog.subset(names, known_at_once=True), bars, sessions, news)
    by_lookback: dict[int, list[str]] = {}
    for f in catalog.features:
        if f.name in names:
            by_lookback.setdefault(f.lookback, []).append(f.name)
    measured = {}
    for lookback, members in by_lookback.items():
        for result in _measure(whole, members, lookback, seed):
            measured[result.feature] = result
    return [measured[name] for name in names]


def _measure(whole: Reference, names: list[str], lookback: int, seed: int) -> Iterator[WarmUp]:
    catalog = whole.catalog.subset(names)
    rows = _sampled_rows(whole, lookback, seed)
    grid = sorted({max(1, round(share * lookback)) for share in SHARES})
    table = {n: _cut_errors(whole, catalog, rows, n) for n in grid}
    moved = _moved_errors(whole, catalog, rows, lookback)
    for name in names:
        error = max(table[lookback][name], moved[name])
        ahead, required = False, None
        if error > TOLERANCE:
            alone = catalog.subset([name])
            ahead = _cut_errors(whole, alone, rows, whole.bars.height)[name] > TOLERANCE
            required = None if ahead else _required(whole, alone, rows, lookback)
        yield WarmUp(
            feature=name,
            lookback=lookback,
            bars=tuple(grid),
            errors=tuple(table[n][name] for n in grid),
            error=error,
            enough=error <= TOLERANCE,
            ahead=ahead,
            required=required,
        )


def _sampled_rows(whole: Reference, lookback: int, seed: int) -> list[int]:
    """Rows of the second half: random ones, session ends, and those a large move has just left."""
    bars, height = whole.bars, whole.bars.height
    first = height // 2
    rng = np.random.default_rng((seed, lookback))
    moves = np.nan_to_num(np.abs(np.diff(np.log(bars["close"].to_numpy()))))
    leaves = 1 + np.argsort(moves)[::-1] + lookback
    ends = np.flatnonzero(np.diff(whole.sessions.locate(bars["time"])))
    rows = [
        *rng.integers(first, height, _SAMPLES),
        *leaves[(leaves >= first) & (leaves < height)][:2],
        *ends[ends >= first][-2:],
    ]
    return sorted({int(row) for row in rows})


def _cut_errors(whole: Reference, catalog: Catalog, rows: list[int], size: int) -> dict[str, float]:
    """Largest error at `rows` when each is computed from its last `size` bars."""
    worst = dict.fromkeys(catalog.names, 0.0)
    for row in rows:
        tail = whole.bars.slice(max(row + 1 - size, 0), min(size, row + 1))
        got = evaluate(catalog, tail, whole.sessions, whole.news).tail(1)
        for name in catalog.names:
            worst[name] = max(worst[name], float(whole.excess(name, got[name], row)[0]))
    return worst


def _moved_errors(whole: Reference, catalog: Catalog, rows: list[int], size: int) -> dict[str, float]:
    """Largest error at `rows` when prices and volumes before each one's last `size` bars are moved."""
    worst = dict.fromkeys(catalog.names, 0.0)
    position = pl.int_range(pl.len())
    values = [c for c in whole.bars.columns if c in VALUES]
    for row in rows:
        history = whole.bars.head(row + 1)
        for factor in _MOVED.values():
            earlier = pl.when(position <= row - size).then(factor).otherwise(1.0)
            moved = history.with_columns(pl.col(name) * earlier for name in values)
            got = evaluate(catalog, moved, whole.sessions, whole.news).tail(1)
            for name in catalog.names:
                worst[name] = max(worst[name], float(whole.excess(name, got[name], row)[0]))
    return worst


def _required(whole: Reference, catalog: Catalog, rows: list[int], lookback: int) -> int | None:
    """The smallest number of bars above `lookback` that is enough at `rows`, by halving intervals."""
    (name,) = catalog.names

    def enough(size: int) -> bool:
        cut = _cut_errors(whole, catalog, rows, size)[name]
        return max(cut, _moved_errors(whole, catalog, rows, size)[name]) <= TOLERANCE

    low, high, most = lookback, lookback * 2, min(rows) + 1
    while not enough(min(high, most)):
        if high >= most:
            return None
        low, high = high, high * 2
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
