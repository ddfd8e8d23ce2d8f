"""The simulator as a source: length, months, determinism, sessions, memory, errors."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.errors import SettingsError
from marketray.ingest.schemas import ARTICLE_SCHEMA, ORACLE_SCHEMA, bar_schema
from marketray.ingest.sources.simulator import planted_size, simulate
from marketray.settings import MarketSettings, SimulatorSource
from tests.ingest.simulated import CMES, MINUTE_US, XNYS, collect

HALTS = tuple(f"{h:02}:{m:02}-{h:02}:{m + 9:02} America/New_York" for h in range(9, 16) for m in (0, 20, 40))
SHORT = SimulatorSource(bars=40_000, effect="all", seed=5)


def test_months_follow_each_other_and_hold_exactly_the_bars_asked_for() -> None:
    chunks = list(simulate(SHORT, CMES, "SIM"))
    assert [c.month for c in chunks] == ["2024-01", "2024-02"]
    assert sum(c.bars.num_rows for c in chunks) == 40_000
    for chunk in chunks:
        assert chunk.bars.schema.equals(bar_schema(sizes=False, flags=False))
        assert chunk.articles.schema.equals(ARTICLE_SCHEMA)
        assert chunk.oracle.schema.equals(ORACLE_SCHEMA)
        for table, column in ((chunk.bars, "time"), (chunk.articles, "available_at")):
            stamps = pl.from_arrow(table)[column]
            assert stamps.is_sorted()
            assert set(stamps.dt.strftime("%Y-%m")) == {chunk.month}


def test_oracle_has_one_row_at_the_end_of_each_bar() -> None:
    data = collect(SHORT, CMES)
    decision = data.oracle["decision_at"].to_physical().to_numpy()
    np.testing.assert_array_equal(decision, data.time_us + MINUTE_US)
    assert data.oracle.null_count().sum_horizontal().item() == 0


def test_same_seed_same_data_whoever_else_draws() -> None:
    first = list(simulate(SHORT, CMES, "SIM"))
    slow = simulate(SHORT, CMES, "SIM")
    other = simulate(SHORT.model_copy(update={"seed": 6}), CMES, "SIM")
    for expected in first:
        got, stranger = next(slow), next(other)
        for name in ("bars", "articles", "oracle"):
            assert getattr(got, name).equals(getattr(expected, name))
            assert not getattr(got, name).equals(getattr(stranger, name))


@pytest.mark.parametrize("market", [CMES, XNYS], ids=["CMES", "XNYS"])
def test_more_bars_start_with_the_same_bars(market: MarketSettings) -> None:
    short = collect(SHORT.model_copy(update={"bars": 12_345}), market)
    long = collect(SHORT, market)
    assert short.bars.equals(long.bars.head(12_345))
    assert short.oracle.equals(long.oracle.head(12_345))
    assert short.articles.equals(long.articles.head(len(short.articles)))
    following = long.articles["available_at"][len(short.articles)]
    assert short.articles["available_at"][-1] <= short.oracle["decision_at"][-1] < following


@given(bars=st.integers(10_000, 39_999), seed=st.integers(-3, 3))
@settings(max_examples=8, deadline=None)
def test_prefix_property_at_any_length(bars: int, seed: int) -> None:
    source = SHORT.model_copy(update={"bars": bars, "seed": seed})
    long = collect(source.model_copy(update={"bars": 40_000}), CMES)
    assert collect(source, CMES).bars.equals(long.bars.head(bars))


def test_instruments_are_independent() -> None:
    one, two = collect(SHORT, CMES, "ONE"), collect(SHORT, CMES, "TWO")
    together = one.bars.join(two.bars, on="time", suffix="_two")
    body = (together["close"] / together["open"] - 1, together["close_two"] / together["open_two"] - 1)
    assert abs(np.corrcoef(*body)[0, 1]) < 4 / np.sqrt(len(together))


@pytest.mark.parametrize("market", [CMES, XNYS, MarketSettings(calendar="XHKG", breaks=())])
def test_no_bar_lies_outside_the_sessions(market: MarketSettings) -> None:
    data = collect(SHORT, market)
    assert (data.session >= 0).all()
    assert data.bars["time"].is_unique().all()
    assert (data.time_us % MINUTE_US == 0).all()


def test_xnys_half_day_and_daylight_saving() -> None:
    source = SimulatorSource(bars=100_000, missing_share=0.0, seed=1)
    daily = (
        collect(source, XNYS)
        .bars.group_by(pl.col("time").dt.date().alias("day"))
        .agg(pl.col("time").min().alias("first"), pl.col("time").max().alias("last"), pl.len())
    )

    def day(text: str) -> tuple[time, time, int]:
        row = daily.filter(pl.col("day") == pl.lit(text).str.to_date()).row(0, named=True)
        return row["first"].time(), row["last"].time(), row["len"]

    assert day("2024-03-08") == (time(14, 30), time(20, 59), 390)  # EST
    assert day("2024-03-11") == (time(13, 30), time(19, 59), 390)  # EDT
    assert day("2024-11-29") == (time(14, 30), time(17, 59), 210)  # half day after Thanksgiving
    assert daily.filter(pl.col("day") == pl.date(2024, 7, 4)).is_empty()


def test_cmes_break_and_short_session() -> None:
    bars = collect(SimulatorSource(bars=330_000, missing_share=0.0, seed=1), CMES).bars
    local = bars["time"].dt.convert_time_zone("America/New_York")
    assert (local.dt.hour() != 17).all()  # the daily break
    evening = (datetime(2024, 11, 28, 17, tzinfo=UTC), datetime(2024, 11, 28, 22, tzinfo=UTC))
    thanksgiving = bars.filter(pl.col("time").is_between(*evening))
    assert thanksgiving["time"].max() == datetime(2024, 11, 28, 17, 59, tzinfo=UTC)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_share_of_missing_minutes(share: float) -> None:
    data = collect(SHORT.model_copy(update={"missing_share": share}), CMES)
    first, last = data.bars["time"][0], data.bars["time"][-1]
    minutes = data.sessions.minutes(first, last) + 1
    error = 4 * np.sqrt(share * (1 - share) / minutes)
    assert 1 - len(data.bars) / minutes == pytest.approx(share, abs=error + 1e-12)


_RSS = """
import sys, psutil
from marketray.ingest.sources.simulator import simulate
from marketray.settings import MarketSettings, SimulatorSource
process, peak = psutil.Process(), 0
for chunk in simulate(SimulatorSource(bars=int(sys.argv[1]), effect="all"), MarketSettings(), "SIM"):
    peak = max(peak, process.memory_info().rss)
print(peak / 2**20)
"""


def _peak_mib(bars: int) -> float:
    done = subprocess.run([sys.executable, "-c", _RSS, str(bars)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_memory_does_not_grow_with_length() -> None:
    assert _peak_mib(2_500_000) < _peak_mib(250_000) + 40


@pytest.mark.slow
def test_a_hundred_million_bars() -> None:
    source = SimulatorSource(bars=100_000_000, start="1975-01-02", effect="market")
    rows, low, high = 0, np.inf, 0.0
    for chunk in simulate(source, CMES, "SIM"):
        close = chunk.bars["close"].to_numpy()
        rows, low, high = rows + len(close), min(low, close.min()), max(high, close.max())
    assert rows == 100_000_000
    assert low > 100
    assert high < 200_000


@pytest.mark.parametrize(
    ("source", "market", "match"),
    [
        ({"start": "January"}, {}, r"source.start='January'; required: a date"),
        ({"bars": 100_000_000}, {}, r"source.bars=100000000: the calendar has fewer minutes from 2024-01-02"),
        ({}, {"calendar": "XXXX"}, r"market.calendar: 'XXXX' is not a calendar"),
        (
            {},
            {"calendar": "XNYS", "breaks": HALTS},
            r"no session of XNYS is longer than 30 minutes",
        ),
        ({"effect": "all", "market_r2": 0.3, "news_r2": 0.3}, {}, r"market_r2=0.3 and news_r2=0.3; required"),
        ({"effect": "all", "market_r2": 0.0, "news_r2": 0.5}, {"calendar": "24/7"}, None),
    ],
)
def test_wrong_settings_are_refused_before_the_first_bar(
    source: dict, market: dict, match: str | None
) -> None:
    call = (SimulatorSource(**source), MarketSettings(**market), "SIM")
    if match is None:
        simulate(*call)
        return
    with pytest.raises(SettingsError, match=match):
        simulate(*call)


def test_a_calendar_that_ends_while_streaming_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketray.ingest.sources.simulator_grid.LAST_YEAR", 2024)
    chunks = simulate(SimulatorSource(bars=1_000_000), CMES, "SIM")
    with pytest.raises(SettingsError, match=r"source.bars=1000000: the calendar has fewer minutes"):
        list(chunks)


def test_a_switched_off_effect_has_size_zero() -> None:
    sizes = {e: planted_size(SimulatorSource(effect=e), CMES) for e in ("none", "market", "news", "all")}
    assert (sizes["none"].flow, sizes["none"].news) == (0.0, 0.0)
    assert sizes["market"].flow > 0 == sizes["market"].news
    assert sizes["news"].news > 0 == sizes["news"].flow
    assert min(sizes["all"].flow, sizes["all"].news) > 0
