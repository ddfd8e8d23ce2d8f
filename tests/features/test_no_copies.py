"""No column of the standard catalog is another one, shifted or scaled."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.features.audit_bars import AuditBars, audit_bars
from marketray.features.kernel import compute
from marketray.settings import load_settings
from tests.features.market import rough_bars, sessions_of
from tests.features.newsfeed import NEWSFEED

NEARLY = 1 - 1e-9
ENOUGH = 100  # rows on which both are known


def affine_pairs(rows: pl.DataFrame) -> tuple[set[tuple[str, str]], set[str]]:
    """Pairs of columns with y = a + b x on all rows where both are known, and the columns that vary.

    Correlations over common rows come from sums of products; a pair near 1 is then fitted by least squares
    and must be met to 1e-9 of the larger column's standard deviation.
    """
    names = [name for name in rows.columns if rows[name].count() >= ENOUGH and rows[name].std() > 0]
    values = rows.select(names).to_numpy()
    known = ~np.isnan(values)
    x = np.where(known, (values - np.nanmean(values, 0)) / np.nanstd(values, 0), 0.0)
    m = known.astype(float)
    n, sums, squares = m.T @ m, x.T @ m, (x**2).T @ m
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = squares / n - (sums / n) ** 2
        r = (x.T @ x / n - (sums / n) * (sums / n).T) / np.sqrt(spread * spread.T)
    r[n < ENOUGH] = 0.0
    near = [(i, j) for i, j in combinations(range(len(names)), 2) if abs(r[i, j]) > NEARLY]
    return {(names[i], names[j]) for i, j in near if _affine(values[:, i], values[:, j])}, set(names)


def _affine(x: np.ndarray, y: np.ndarray) -> bool:
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
    return bool(np.abs(y - (x @ y) / (x @ x) * x).max() <= 1e-9 * np.abs(y).max())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> AuditBars:
    """Simulated minutes with quotes, sizes and news, and the standard catalog."""
    home: Path = tmp_path_factory.mktemp("home")
    return audit_bars(load_settings(None, {"home": str(home)}), 4_500)


def test_affine_pairs_are_found() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 400))
    rows = pl.DataFrame(
        {"x": x, "same": x, "turned": 3 - 1e-4 * x, "log": np.log1p(x * 1e-4), "y": y, "one": 1}
    )
    rows = rows.with_columns(pl.when(pl.int_range(400) % 3 > 0).then("turned"))
    assert affine_pairs(rows) == (
        {("x", "same"), ("x", "turned"), ("same", "turned")},
        {"x", "same", "turned", "log", "y"},
    )


def slowly(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """The times 241-fold apart, so that a few days become years of all hours, months and short sessions."""
    first = frame[column][0]
    return frame.with_columns((first + (pl.col(column) - first) * 241).alias(column))


def test_no_two_features_are_affine(simulated: AuditBars) -> None:
    """On simulated minutes, and on rough bars spread over years, where calendar and quotes vary too."""
    news = simulated.news
    assert news is not None
    bars = slowly(rough_bars(4_500, seed=3), "time").with_columns(
        bid=pl.col("bid") - (pl.col("high") - pl.col("low")) * 0.01
    )
    markets = (
        compute(simulated.catalog, simulated.frame, simulated.sessions, news),
        compute(simulated.catalog, bars, sessions_of(bars["time"]), slowly(NEWSFEED, "available_at")),
    )
    found = [affine_pairs(rows.drop("time", "decision_at")) for rows in markets]
    varying = [varies for _, varies in found]
    assert varying[0] | varying[1] == set(simulated.catalog.names)
    copies = {
        pair
        for pairs, _ in found
        for pair in pairs
        if all(pair in p for p, varies in found if set(pair) <= varies)
    }
    assert copies == set()
