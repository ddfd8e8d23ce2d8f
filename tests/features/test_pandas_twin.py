"""Every built-in feature equals what a user of pandas would write, which the benchmark also runs against."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from benchmarks.rivals.pandas_pass import columns, with_sessions
from marketray.features.audit import interquartile_range, relative_excess
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import MARKET, make_bars, sessions_of

RNG = np.random.default_rng(71)
MADE = make_bars(4_000, seed=71, flat=False)
HOLE = (pl.int_range(pl.len()) >= 1_700) & (pl.int_range(pl.len()) < 1_900)
BARS = MADE.with_columns(
    bid_size=pl.Series(RNG.integers(1, 50, MADE.height).astype(float)),
    ask_size=pl.Series(RNG.integers(1, 50, MADE.height).astype(float)),
).filter(~HOLE)
CATALOG = build_catalog(FeatureSettings(), BARS.columns)
ROWS = compute(CATALOG, BARS, sessions_of(BARS["time"]))
TWIN = columns(with_sessions(BARS.to_pandas(), MARKET))


def test_every_feature_has_its_twin() -> None:
    assert sorted(set(CATALOG.names) - set(TWIN)) == []


@pytest.mark.parametrize("name", CATALOG.names)
def test_the_twin_has_the_same_values(name: str) -> None:
    """Tolerance 1e-6: pandas adds to and takes from running sums, whose rounding stays."""
    got = ROWS[name].to_numpy()[CATALOG[name].lookback - 1 :]
    twin = TWIN[name].to_numpy(dtype=np.float64, na_value=np.nan)[CATALOG[name].lookback - 1 :]
    finite = np.where(np.isfinite(twin), twin, np.nan)
    assert np.isfinite(got).mean() > 0.5
    excess = relative_excess(got, finite, interquartile_range(ROWS[name]))
    worst = int(excess.argmax())
    assert excess[worst] <= 1e-6, f"row {worst} of {len(got)}: {got[worst]} against {finite[worst]}"
