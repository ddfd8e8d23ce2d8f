"""Law 3: the row of the online state is the row of the batch, over gaps, sessions, cuts and restarts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.online import OnlineState
from marketray.lake import Lake
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, MARKET, assert_equal, make_bars, sessions_of, spread, store

CATALOG = build_catalog(FeatureSettings(), COLUMNS)
LOOKBACK = CATALOG.lookback
EXACT = {f.name for f in CATALOG.features if f.exact}
BARS = make_bars(4_500, seed=33, start=datetime(2024, 2, 26, tzinfo=UTC))  # over a month's edge
BATCH = compute(CATALOG, BARS, sessions_of(BARS["time"]))
SPREADS = {name: spread(BATCH, name) for name in CATALOG.names}
MINUTE = timedelta(minutes=1)


def append_all(state: OnlineState, bars: pl.DataFrame) -> pl.DataFrame:
    """Append bars in order, each at its end; their rows in one table, as `FeatureRow.frame` gives one."""
    rows = [state.append(b, b["time"] + MINUTE) for b in bars.iter_rows(named=True)]
    assert state.bars.height <= LOOKBACK
    stamps = {name: [getattr(row, name) for row in rows] for name in ("time", "decision_at")}
    values = pl.DataFrame(np.array([row.values for row in rows]), schema=list(rows[0].names)).fill_nan(None)
    return pl.DataFrame(stamps, schema=dict.fromkeys(stamps, pl.Datetime("us", "UTC"))).hstack(values)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cut=st.integers(LOOKBACK, len(BARS) - 12), count=st.integers(1, 12))
def test_any_cut_goes_on_as_the_batch(cut: int, count: int) -> None:
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(cut))
    assert state.row is not None
    assert_equal(state.row.frame(), BATCH.slice(cut - 1, 1), SPREADS, EXACT)
    assert_equal(append_all(state, BARS.slice(cut, count)), BATCH.slice(cut, count), SPREADS, EXACT)


def test_flat_minutes_and_a_spike_at_the_edges_of_every_window() -> None:
    for first in (1_495, 2_245, 2_300):
        state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(first))
        assert_equal(append_all(state, BARS.slice(first, 70)), BATCH.slice(first, 70), SPREADS, EXACT)


def test_the_first_bars_of_all_have_the_nulls_of_the_batch() -> None:
    state = OnlineState(CATALOG, MARKET)
    assert state.row is None
    assert_equal(append_all(state, BARS.head(130)), BATCH.head(130), SPREADS, EXACT)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_random_markets_with_gaps_holes_and_missing_values(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31), label="seed"))
    bars = make_bars(3_200, seed=int(rng.integers(2**31)), flat=data.draw(st.booleans(), label="flat"))
    share = data.draw(st.sampled_from([0.0, 0.02, 0.4]), label="share of missing minutes")
    missing = rng.random(3_200) < share
    start = data.draw(st.integers(0, 3_200), label="start of a hole")
    missing[start : start + data.draw(st.integers(0, 400), label="length of the hole")] = True
    unknown = pl.Series(rng.random(3_200) < data.draw(st.sampled_from([0.0, 0.01]), label="no volume"))
    bars = bars.with_columns(volume=pl.when(~unknown).then("volume")).filter(~pl.Series(missing))
    batch = compute(CATALOG, bars, sessions_of(bars["time"]))
    cut = data.draw(st.integers(1, bars.height - 5), label="cut")
    state = OnlineState.from_bars(CATALOG, MARKET, bars.head(cut), from_start=True)
    assert_equal(append_all(state, bars.slice(cut, 5)), batch.slice(cut, 5), SPREADS, EXACT)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(1, len(BARS) - 3), min_size=1, max_size=3, unique=True))
def test_restarts_from_the_lake_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for cut in cuts:
        lake.delete("bronze/bars")
        store(lake, "TEST_USD", BARS.head(cut))
        state = OnlineState.from_lake(CATALOG, MARKET, lake, "TEST_USD")
        running = OnlineState.from_bars(CATALOG, MARKET, BARS.head(max(cut - 3, 0)), from_start=True)
        append_all(running, BARS.slice(max(cut - 3, 0), min(cut, 3)))
        assert state.row is not None
        assert running.row is not None
        np.testing.assert_array_equal(state.row.values, running.row.values)
        assert_equal(append_all(state, BARS.slice(cut, 3)), BATCH.slice(cut, 3), SPREADS, EXACT)


def test_a_recorded_day_replays_to_the_rows_of_the_batch(spx_path: Path) -> None:
    first, last = datetime(2018, 12, 26, tzinfo=UTC), datetime(2018, 12, 27, tzinfo=UTC)
    bars = (
        pl.scan_parquet(spx_path)
        .filter(pl.col("time").is_between(first - timedelta(days=12), last, closed="left"))
        .collect()
    )
    catalog = build_catalog(FeatureSettings(), ("time", "open", "high", "low", "close"))
    batch = compute(catalog, bars, sessions_of(bars["time"]))
    before = int((bars["time"] < first).sum())
    assert bars.height - before == 1_334
    state = OnlineState.from_bars(catalog, MARKET, bars.head(before))
    rows = append_all(state, bars.slice(before))
    spreads = {name: spread(batch, name) for name in catalog.names}
    assert_equal(rows, batch.slice(before), spreads, {f.name for f in catalog.features if f.exact})


def test_a_recorded_day_of_mourning_is_kept_where_the_feed_says_so(spx_path: Path) -> None:
    first, last = datetime(2018, 12, 5, 14, tzinfo=UTC), datetime(2018, 12, 5, 16, tzinfo=UTC)
    bars = (
        pl.scan_parquet(spx_path)
        .filter(pl.col("time").is_between(first - timedelta(days=7), last, closed="left"))
        .collect()
    )
    catalog = build_catalog(FeatureSettings(), ("time", "open", "high", "low", "close"))
    sessions = sessions_of(bars["time"])
    batch = compute(catalog, bars, sessions)
    before = int((bars["time"] < first).sum())
    assert (sessions.locate(bars["time"].slice(before)) < 0).all()
    state = OnlineState.from_bars(catalog, MARKET, bars.head(before), outside_sessions="keep")
    spreads = {name: spread(batch, name) for name in catalog.names}
    exact = {f.name for f in catalog.features if f.exact}
    assert_equal(append_all(state, bars.slice(before)), batch.slice(before), spreads, exact)
