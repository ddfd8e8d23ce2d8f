"""The kernel: session clock on days known by heart, flat bars, missing values, and what it refuses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute, compute_range, latest
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of

BARS = make_bars(2_000, seed=3)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
CLOCK = build_catalog(
    FeatureSettings(groups=("session",), exclude=("return_since_open",)), ("time", *COLUMNS[1:5])
)
NEW_YORK = trading_sessions("XNYS", date(2024, 3, 1), date(2024, 12, 1))


def bars_at(*times: datetime) -> pl.DataFrame:
    flat = dict.fromkeys(("open", "high", "low", "close"), 10.0)
    return pl.DataFrame({"time": pl.Series(times, dtype=pl.Datetime("us", "UTC"))}).with_columns(
        **{name: pl.lit(value) for name, value in flat.items()}
    )


@pytest.mark.parametrize(
    ("at", "since", "left"),
    [
        (datetime(2024, 3, 8, 14, 30, tzinfo=UTC), 1, 389),  # winter time: opens 14:30 UTC
        (datetime(2024, 3, 11, 13, 30, tzinfo=UTC), 1, 389),  # summer time began: 13:30 UTC
        (datetime(2024, 3, 11, 19, 59, tzinfo=UTC), 390, 0),
        (datetime(2024, 7, 3, 16, 0, tzinfo=UTC), 151, 59),  # half day: closes 17:00 UTC
        (datetime(2024, 7, 3, 17, 0, tzinfo=UTC), None, None),
        (datetime(2024, 7, 4, 15, 0, tzinfo=UTC), None, None),  # holiday
    ],
)
def test_session_clock(at: datetime, since: float | None, left: float | None) -> None:
    row = compute(CLOCK, bars_at(at), NEW_YORK).row(0, named=True)
    assert row["minutes_since_open"] == since
    assert row["minutes_to_close"] == left
    assert row["decision_at"] == at + timedelta(minutes=1)


def test_declared_break_ends_the_session() -> None:
    cut = trading_sessions("CMES", date(2024, 3, 11), date(2024, 3, 15), ("17:00-18:00 America/New_York",))
    times = [datetime(2024, 3, 12, h, m, tzinfo=UTC) for h, m in ((20, 59), (21, 30), (22, 0))]
    rows = compute(CLOCK, bars_at(*times), cut)
    assert rows["minutes_to_close"].to_list() == [0.0, None, 1379.0]
    assert rows["minutes_since_open"].to_list() == [1380.0, None, 1.0]
    assert rows["minutes_since_previous_bar"].to_list() == [None, 31.0, 30.0]


def test_flat_bars_have_defined_values() -> None:
    start = datetime(2024, 3, 12, tzinfo=UTC)
    bars = bars_at(*(start + timedelta(minutes=i) for i in range(1_000))).with_columns(
        volume=pl.lit(5.0), bid=pl.lit(9.0), ask=pl.lit(11.0)
    )
    row = compute(CATALOG, bars, SESSIONS).tail(1).row(0, named=True)
    assert {n: row[n] for n in ("rsi_14", "stochastic_k_14", "stochastic_d_14")} == {
        "rsi_14": 50.0,
        "stochastic_k_14": 50.0,
        "stochastic_d_14": 50.0,
    }
    assert row["bollinger_position_20"] == row["range_position_60"] == 0.5
    assert row["volatility_ratio_10_60"] == row["volume_ratio_20"] == 1.0
    assert row["spread_relative"] == 0.2
    still = (
        "adx_14",
        "di_difference_14",
        "order_flow_imbalance",
        "volume_zscore_20",
        "realized_volatility_60",
    )
    assert [row[n] for n in (*still, "yang_zhang_volatility_20", "atr_14", "macd", "return_240")] == [0.0] * 9


def test_missing_volume_empties_its_windows_only() -> None:
    gap = BARS.with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 1_500).then(None).otherwise(pl.col("volume"))
    )
    rows, whole = compute(CATALOG, gap, SESSIONS), compute(CATALOG, BARS, SESSIONS)
    assert rows["volume_zscore_20"].slice(500).is_null().arg_true().to_list() == list(range(1_000, 1_020))
    assert rows["rsi_14"].equals(whole["rsi_14"])


def test_nothing_traded_gives_null_not_infinity() -> None:
    rows = compute(CATALOG, BARS.with_columns(volume=pl.lit(0.0)), SESSIONS)
    for name in ("volume_ratio_20", "vwap_distance_20", "vwap_distance_session"):
        assert rows[name].null_count() == rows.height
    assert rows["volume_zscore_20"].drop_nulls().unique().to_list() == [0.0]


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (BARS.drop("low"), r"got the columns .* which lack \['low'\]"),
        (BARS.with_columns(pl.col("time").dt.cast_time_unit("ms")), "time is Datetime.*required: Datetime"),
        (BARS.reverse(), "the times do not strictly increase"),
        (pl.concat([BARS.head(5), BARS.slice(4, 5)]), "the times do not strictly increase"),
    ],
)
def test_bad_bars_are_refused(bars: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compute(CATALOG, bars, SESSIONS)


def test_a_session_longer_than_a_day_is_refused() -> None:
    frame = SESSIONS.frame.with_columns(close_at=pl.col("close_at") + pl.duration(hours=3))
    with pytest.raises(SettingsError, match=r"a session lasts 1 day.*required: at most 1440 minutes"):
        compute(CATALOG, BARS, Sessions(frame))


def test_a_halo_shorter_than_the_lookback_is_refused() -> None:
    start, end = BARS["time"][1_600], BARS["time"][1_700]
    table = BARS.to_arrow()
    short = table.slice(1_600 - CATALOG.lookback + 2)
    with pytest.raises(
        DataError, match=f"got a halo of {CATALOG.lookback - 2} .*required: {CATALOG.lookback - 1}"
    ):
        compute_range(CATALOG, short, SESSIONS, start, end)
    enough = compute_range(CATALOG, table.slice(1_600 - CATALOG.lookback + 1), SESSIONS, start, end)
    assert enough.num_rows == 100
    assert compute_range(CATALOG, short, SESSIONS, start, end, from_start=True).num_rows == 100


def test_latest_refuses_a_short_tail() -> None:
    with pytest.raises(DataError, match=f"got 10; required: the last {CATALOG.lookback}"):
        latest(CATALOG, BARS.tail(10), SESSIONS)
    with pytest.raises(DataError, match="got 0"):
        latest(CATALOG, BARS.clear(), SESSIONS, from_start=True)
    assert latest(CATALOG, BARS.head(10), SESSIONS, from_start=True)["rsi_14"].to_list() == [None]
