"""Gap features against loops over the bars, and days and holes known by heart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.sessions import trading_sessions
from marketray.settings import FeatureSettings
from tests.features.market import sessions_of
from tests.features.quoted import BARS, OPEN, C, H, L, assert_formula, lagged, still_row

MINUTE = BARS["time"].dt.epoch("s").to_numpy() // 60
SESSION = sessions_of(BARS["time"]).locate(BARS["time"])
PRICES = ("time", "open", "high", "low", "close")


def session_gaps() -> tuple[np.ndarray, np.ndarray]:
    gap, filled = np.full(len(C), np.nan), np.full(len(C), np.nan)
    for number in np.unique(SESSION)[1:]:
        (within,) = np.nonzero(number == SESSION)
        before = C[within[0] - 1]
        gap[within] = OPEN[within[0]] / before - 1
        for i in within:
            so_far = slice(within[0], i + 1)
            filled[i] = L[so_far].min() <= before <= H[so_far].max()
    return gap, filled


def missing_share() -> np.ndarray:
    held = {int(m) for m in MINUTE}
    shares = []
    for i, last in enumerate(MINUTE):
        slots = range(int(MINUTE[max(i - 59, 0)]) + 1, int(last) + 1)
        shares.append(sum(m not in held for m in slots) / max(len(slots), 1))
    return np.array(shares)


def bars_between(start: int, end: int) -> np.ndarray:
    held = set(MINUTE.tolist())
    return np.array([sum(int(m) - k in held for k in range(start, end)) / (end - start) for m in MINUTE])


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "gap_1": lambda: OPEN / lagged(C) - 1,
    "session_gap": lambda: session_gaps()[0],
    "gap_filled": lambda: session_gaps()[1],
    "missing_share_60": missing_share,
    "bars_30_to_60": lambda: bars_between(30, 60),
    "bars_30_to_360": lambda: bars_between(30, 360),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def test_still_bars() -> None:
    row = still_row()
    assert (row["gap_1"], row["session_gap"], row["gap_filled"]) == (0.0, 0.0, 1.0)


def gaps_of(times: list[datetime], prices: list[float], interval: int, calendar: str) -> pl.DataFrame:
    """Gap features of bars whose open, high, low and close are one price each."""
    at = pl.Series("time", times, dtype=pl.Datetime("us", "UTC"))
    bars = pl.DataFrame({"time": at, **dict.fromkeys(PRICES[1:], prices)})
    catalog = build_catalog(FeatureSettings(groups=("gaps",)), PRICES, interval)
    return compute(catalog, bars, trading_sessions(calendar, date(2024, 3, 1), date(2024, 3, 29)))


def test_a_session_gap_is_known_from_the_first_bar_on_and_filled_when_reached() -> None:
    first = [datetime(2024, 3, 11, 13, 30, tzinfo=UTC) + timedelta(hours=i) for i in range(26)]
    opened = datetime(2024, 3, 13, 13, 30, tzinfo=UTC)
    rows = gaps_of(
        [*first, opened, opened + timedelta(hours=1), opened + timedelta(hours=2)],
        [100.0] * 26 + [101.0, 100.5, 99.0],
        60,
        "XNYS",
    )
    assert rows["session_gap"].to_list()[-3:] == pytest.approx([0.01] * 3)
    assert rows["gap_filled"].to_list()[-3:] == [0.0, 0.0, 1.0]


def test_daily_bars_have_session_gaps() -> None:
    days = [datetime(2024, 3, 4, tzinfo=UTC) + timedelta(days=i) for i in range(4)]
    rows = gaps_of(days, [100.0, 110.0, 99.0, 99.0], 1440, "24/7")
    assert rows["session_gap"].to_list() == [None, *(pytest.approx(gap) for gap in (0.1, -0.1, 0.0))]
    assert rows["gap_filled"].to_list() == [None, 0.0, 0.0, 1.0]


def test_the_last_minute_of_a_full_day_is_null_since_the_bar_before_is_a_day_and_a_bar_back() -> None:
    start = datetime(2024, 3, 4, tzinfo=UTC)
    rows = gaps_of([start + timedelta(minutes=i) for i in range(4320)], [100.0] * 4320, 1, "24/7")
    assert rows["session_gap"].slice(1440).is_null().arg_true().to_list() == [1439, 2879]


def test_missing_bars_are_counted_on_the_grid_of_the_interval() -> None:
    times = [datetime(2024, 3, 11, tzinfo=UTC) + timedelta(minutes=5 * i) for i in range(500)]
    kept = [t for i, t in enumerate(times) if not 440 <= i < 450]
    row = gaps_of(kept, [100.0] * len(kept), 5, "24/7").row(-1, named=True)
    assert row["bars_30_to_60"] == pytest.approx(20 / 30)  # the slots 440 to 469, ten of them empty
    assert row["bars_30_to_360"] == pytest.approx(320 / 330)
    assert row["missing_share_60"] == pytest.approx(10 / 69)
