"""Hourly and daily bars: their sessions, their decision times, and equality of batch, tail and online."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from marketray.features.catalog import Catalog, build_catalog
from marketray.features.items import BarMonth, batches, month_ranges, plan_items
from marketray.features.kernel import compute, latest, with_kernel_columns
from marketray.features.online import OnlineState
from marketray.features.stage import run_features, run_ranges
from marketray.lake import Lake
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import FeatureSettings, LabelSettings, MarketSettings, Settings
from tests.features.market import COLUMNS, assert_equal, spread, store

NEW_YORK = ZoneInfo("America/New_York")
XNYS = MarketSettings(calendar="XNYS", breaks=())
HALT = ("17:00-18:00 America/New_York",)


def priced(times: list[datetime], seed: int) -> pl.DataFrame:
    """Seeded bars at these opens, with every column the features know."""
    rng = np.random.default_rng(seed)
    close = 400 * np.exp(np.cumsum(rng.normal(0, 4e-3, len(times))))
    opened = close * np.exp(rng.normal(0, 2e-3, len(times)))
    reach = 1 + np.abs(rng.normal(0, 1e-3, len(times)))
    return pl.DataFrame(
        {
            "time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "open": opened,
            "high": np.maximum(opened, close) * reach,
            "low": np.minimum(opened, close) / reach,
            "close": close,
            "volume": rng.integers(1, 900, len(times)).astype(float),
            "bid": close * 0.9999,
            "ask": close * 1.0001,
        }
    )


def hourly(first: date, last: date, seed: int) -> tuple[pl.DataFrame, Sessions]:
    """Hours from each New York open; the last bar of a whole day, from 15:30, has half an hour of trade."""
    sessions = trading_sessions("XNYS", first, last)
    spans = sessions.frame.filter(pl.col("session_date").is_between(first, last))
    times = [
        opened + timedelta(hours=h)
        for opened, closed in spans.select("open_at", "close_at").iter_rows()
        for h in range(7)
        if opened + timedelta(hours=h) < closed
    ]
    return priced(times, seed), sessions


def daily(first: date, last: date, seed: int, zone: ZoneInfo = NEW_YORK) -> tuple[pl.DataFrame, Sessions]:
    """A bar a session, stamped at midnight of its date in `zone`."""
    sessions = trading_sessions("XNYS", first, last)
    dates = sessions.frame.filter(pl.col("session_date").is_between(first, last))["session_date"]
    times = [datetime(d.year, d.month, d.day, tzinfo=zone).astimezone(UTC) for d in dates]
    return priced(times, seed), sessions


HOURS, HOUR_SESSIONS = hourly(date(2023, 6, 1), date(2024, 3, 28), seed=61)
DAYS, DAY_SESSIONS = daily(date(2018, 1, 2), date(2023, 12, 29), seed=62)
KINDS = {60: (HOURS, HOUR_SESSIONS), 1440: (DAYS, DAY_SESSIONS)}


def catalog_of(step: int) -> Catalog:
    return build_catalog(FeatureSettings(), COLUMNS, step)


def row_at(rows: pl.DataFrame, local: datetime) -> dict[str, float]:
    return rows.filter(pl.col("time") == local.replace(tzinfo=NEW_YORK).astimezone(UTC)).row(0, named=True)


def test_hours_stand_in_their_session() -> None:
    rows = compute(catalog_of(60).subset(["minutes_since_open", "minutes_to_close"]), HOURS, HOUR_SESSIONS)
    first, last = (row_at(rows, datetime(2024, 3, 12, hour, 30)) for hour in (9, 15))
    assert first["decision_at"] == datetime(2024, 3, 12, 10, 30, tzinfo=NEW_YORK)
    assert (first["minutes_since_open"], first["minutes_to_close"]) == (60, 330)
    # known half an hour after the close: the rule of the decision time knows no shorter bar
    assert (last["minutes_since_open"], last["minutes_to_close"]) == (420, -30)


def test_what_a_session_has_done_counts_its_own_hours_only() -> None:
    names = ["return_since_open", "vwap_distance_session"]
    rows = compute(catalog_of(60).subset(names), HOURS, HOUR_SESSIONS)
    opened = datetime(2024, 3, 12, 9, 30, tzinfo=NEW_YORK).astimezone(UTC)
    day = HOURS.filter(pl.col("time").is_between(opened, opened + timedelta(hours=6)))
    assert len(day) == 7
    typical, volume = (day["high"] + day["low"] + day["close"]) / 3, day["volume"]
    for i in (0, 3, 6):
        got = row_at(rows, datetime(2024, 3, 12, 9 + i, 30))
        assert got["return_since_open"] == day["close"][i] / day["open"][0] - 1
        vwap = np.average(typical[: i + 1], weights=volume[: i + 1])
        assert got["vwap_distance_session"] == pytest.approx(day["close"][i] / vwap - 1, abs=1e-12)
    half = row_at(rows, datetime(2023, 11, 24, 12, 30))  # the last hour before the early close
    assert half["return_since_open"] is not None


def test_the_lookback_of_the_session_is_a_day_of_bars() -> None:
    found = {step: {f.name: f.lookback for f in catalog_of(step).features} for step in (7, 60, 720, 1440)}
    assert [found[step]["return_since_open"] for step in (7, 60, 720)] == [206, 24, 2]
    assert catalog_of(1440).group("session") == ("minutes_since_previous_bar",)
    assert set(found[60]) - set(found[1440]) == {
        "minutes_since_open", "minutes_to_close", "hour_sin", "hour_cos", "return_since_open",
        "vwap_distance_session", "session_progress", "is_session_open_30", "is_session_close_30",
        "return_from_session_high", "return_from_session_low", "session_range_position",
    }  # fmt: skip


@pytest.mark.parametrize("step", KINDS)
def test_the_tail_and_the_online_state_give_the_row_of_the_batch(step: int) -> None:
    bars, sessions = KINDS[step]
    catalog, market = catalog_of(step), XNYS
    assert len(bars) > catalog.lookback + 40
    batch = compute(catalog, bars, sessions)
    spreads = {name: spread(batch, name) for name in catalog.names}
    exact = {f.name for f in catalog.features if f.exact}
    for end in (len(bars), len(bars) - 17):
        row = latest(catalog, bars.head(end), sessions)
        assert_equal(row, batch.slice(end - 1, 1), spreads, exact)
    state = OnlineState.from_bars(catalog, market, bars.head(len(bars) - 30))
    rows = [
        state.append(bar, bar["time"] + timedelta(minutes=step)).frame()
        for bar in bars.tail(30).iter_rows(named=True)
    ]
    assert_equal(pl.concat(rows), batch.tail(30), spreads, exact)
    assert all(batch.tail(30)[name].null_count() == 0 for name in catalog.names)


def test_a_daily_bar_of_a_holiday_is_outside_all_sessions() -> None:
    state = OnlineState.from_bars(catalog_of(1440), XNYS, DAYS.head(1_200))
    saturday = DAYS.row(1_200, named=True) | {"time": datetime(2023, 12, 30, 5, tzinfo=UTC)}
    refused = state.refusal(saturday, None)
    assert refused is not None
    assert refused.reason == "outside_session"


@pytest.mark.parametrize("calendar", ["XNYS", "CMES", "XTKS", "XLON", "24/7"])
@pytest.mark.parametrize("zone", ["own", "UTC"])
def test_a_daily_bar_is_known_no_earlier_than_its_session_closes(calendar: str, zone: str) -> None:
    own = {
        "XNYS": "America/New_York",
        "CMES": "America/New_York",
        "XTKS": "Asia/Tokyo",
        "XLON": "Europe/London",
    }
    where = ZoneInfo(own.get(calendar, "UTC") if zone == "own" else "UTC")
    sessions = trading_sessions(
        calendar, date(2024, 1, 8), date(2024, 12, 20), HALT if calendar == "CMES" else ()
    )
    frame = sessions.frame.filter(pl.col("session_date").is_between(date(2024, 1, 8), date(2024, 12, 20)))
    closes = frame.group_by("session_date", maintain_order=True).agg(pl.col("close_at").last())
    times = [datetime(d.year, d.month, d.day, tzinfo=where).astimezone(UTC) for d in closes["session_date"]]
    catalog = build_catalog(FeatureSettings(groups=("returns",)), COLUMNS, 1440)
    found = with_kernel_columns(catalog, priced(times, seed=63), sessions)
    assert found["_close_at"].to_list() == closes["close_at"].to_list()
    assert (found["_decision_at"] >= found["_close_at"]).all()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("step", KINDS)
def test_months_computed_together_equal_months_computed_alone(home: Path, step: int) -> None:
    bars, sessions = KINDS[step]
    labels = LabelSettings(horizon_minutes=60, extra_horizons_minutes=())
    settings = Settings(home=home, instrument="TEST", bar_interval_minutes=step, market=XNYS, labels=labels)
    lake = Lake(settings.lake_uri)
    store(lake, "TEST", bars)
    stored = [BarMonth(p["month"], 1, "") for p in lake.partitions("bronze/bars")]
    together = run_features(settings)
    alone = run_ranges(settings, month_ranges(stored)[-6:], "silver/alone")
    assert (together.written, alone.written) == (len(stored), 6)
    catalog = catalog_of(step)
    batch = compute(catalog, bars, sessions)
    spreads = {name: spread(batch, name) for name in catalog.names}
    exact = {f.name for f in catalog.features if f.exact}
    for dataset in ("silver/features", "silver/alone"):
        rows = pl.concat(pl.DataFrame(pl.from_arrow(table)) for _, table in lake.scan(dataset))
        assert_equal(rows, batch.tail(len(rows)), spreads, exact)


def test_short_adjacent_months_share_a_task() -> None:
    sizes = {"2024-01": 40, "2024-02": 60, "2024-03": 1, "2024-05": 10, "2024-06": 500, "2024-07": 5}
    months = [BarMonth(m, n, m) for m, n in sizes.items()]
    items = plan_items("TEST", months, month_ranges(months), 1, "recipe")
    found = [[i.span.label for i in batch] for batch in batches(items, sizes, 100)]
    assert found == [["2024-01", "2024-02"], ["2024-03"], ["2024-05"], ["2024-06"], ["2024-07"]]
