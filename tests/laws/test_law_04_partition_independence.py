"""Law 4: features do not depend on how the work was cut, nor on the number of workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.features.catalog import build_catalog
from marketray.features.items import TimeRange
from marketray.features.kernel import compute, compute_range
from marketray.features.stage import run_features, run_ranges
from marketray.lake import Lake
from marketray.settings import FeatureSettings, Settings
from tests.features.market import COLUMNS, assert_equal, make_bars, sessions_of, spread, store

BARS = make_bars(12_000, seed=41, start=datetime(2024, 2, 26, tzinfo=UTC))  # over a month's and DST's edge
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
WHOLE = compute(CATALOG, BARS, SESSIONS)
SPREADS = {name: spread(WHOLE, name) for name in CATALOG.names}
EXACT = {f.name for f in CATALOG.features if f.exact}
INSTRUMENT = "TEST_USD"


def ranges(count: int, seed: int) -> list[TimeRange]:
    """`count` ranges with edges at random bars, which together cover all bars."""
    rng = np.random.default_rng(seed)
    edges = sorted(rng.choice(np.arange(1, len(BARS)), count - 1, replace=False).tolist())
    times = [BARS["time"][i] for i in (0, *edges)] + [BARS["time"][-1] + timedelta(minutes=1)]
    return [TimeRange("part", f"{i:02d}", times[i], times[i + 1]) for i in range(count)]


def stored(lake: Lake, dataset: str) -> pl.DataFrame:
    """All rows of a dataset in time order."""
    return pl.concat([pl.DataFrame(pl.from_arrow(table)) for _, table in lake.scan(dataset)])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with a lake that holds the bars."""
    made = Settings(home=tmp_path_factory.mktemp("law4"), instrument=INSTRUMENT)
    store(Lake(made.lake_uri), INSTRUMENT, BARS)
    return made


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 7, 39])
def test_any_cut_and_any_number_of_workers_give_the_same_features(
    filled: Settings, count: int, workers: int
) -> None:
    dataset = f"silver/features_{count}_{workers}"
    result = run_ranges(filled, ranges(count, seed=count + workers), dataset, workers=workers)
    assert (result.written, result.rows) == (count, len(BARS))
    assert_equal(stored(Lake(filled.lake_uri), dataset), WHOLE, SPREADS, EXACT)


@pytest.mark.usefixtures("ray_local")
def test_months_are_one_cut_among_others_and_repeat_to_the_byte(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    run_features(filled)
    files = sorted(Path(lake.path("silver/features")).rglob("*.parquet"))
    before = [f.read_bytes() for f in files]
    assert_equal(stored(lake, "silver/features"), WHOLE, SPREADS, EXACT)
    lake.delete("silver/features")
    run_features(filled, workers=1)
    assert [f.read_bytes() for f in files] == before


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, len(BARS) - 1), st.integers(1, 800), st.integers(0, 2_000))
def test_a_range_with_any_longer_halo_equals_the_whole(first: int, size: int, longer: int) -> None:
    last = min(first + size, len(BARS) - 1)
    halo_start = max(first - (CATALOG.lookback - 1) - longer, 0)
    got = compute_range(
        CATALOG,
        BARS.slice(halo_start).to_arrow(),
        SESSIONS,
        BARS["time"][first],
        BARS["time"][last],
        from_start=halo_start == 0,
    )
    assert_equal(pl.DataFrame(pl.from_arrow(got)), WHOLE.slice(first, last - first), SPREADS, EXACT)


@pytest.mark.parametrize("row", [4_050, 6_003, 9_000])  # in the flat minutes, after the spike, at large
def test_every_declared_lookback_is_enough_on_its_own(row: int) -> None:
    for lookback in sorted({f.lookback for f in CATALOG.features}):
        names = [f.name for f in CATALOG.features if f.lookback == lookback]
        columns = ["time", "decision_at", *names]
        tail = compute(CATALOG, BARS.slice(row + 1 - lookback, lookback), SESSIONS).tail(1)
        assert_equal(tail.select(columns), WHOLE.slice(row, 1).select(columns), SPREADS, EXACT)


def test_real_bars_cut_at_weeks_equal_the_whole(spx_path: Path) -> None:
    bars = pl.scan_parquet(spx_path).filter(pl.col("time") < datetime(2018, 3, 20, tzinfo=UTC)).collect()
    catalog = build_catalog(FeatureSettings(), ("time", "open", "high", "low", "close"))
    sessions = sessions_of(bars["time"])
    whole = compute(catalog, bars, sessions)
    spreads = {name: spread(whole, name) for name in catalog.names}
    table, parts, cursor = bars.to_arrow(), [], bars["time"][0]
    while cursor <= bars["time"][-1]:
        after = cursor + timedelta(days=7)
        start = max(int((bars["time"] < cursor).sum()) - (catalog.lookback - 1), 0)
        rows = compute_range(catalog, table.slice(start), sessions, cursor, after, from_start=start == 0)
        parts.append(pl.DataFrame(pl.from_arrow(rows)))
        cursor = after
    assert_equal(pl.concat(parts), whole, spreads, {f.name for f in catalog.features if f.exact})
