"""Outliers are flagged and spikes refused, by what came before; checked against the formula bar by bar."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.ingest.coverage import SessionIndex
from marketray.ingest.outliers import OutlierCheck
from tests.ingest.made_bars import minutes

START = datetime(2024, 1, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")
XNYS = SessionIndex("XNYS", ())
ALWAYS = SessionIndex("24/7", ())


def judge(
    frame: pl.DataFrame, sessions: SessionIndex = ALWAYS, size: int = 10**9
) -> tuple[pl.DataFrame, list[int]]:
    """Kept rows with their flag, and the positions of spikes."""
    check = OutlierCheck(sessions, outlier_sigma=8, spike_sigma=20, spike_reversal=0.8)
    frame = frame.with_columns(line=pl.int_range(len(frame), dtype=pl.Int64), reason=pl.lit(None, pl.String))
    results = [check.push(frame[i : i + size]) for i in range(0, len(frame), size)]
    last = check.flush()
    results += [] if last is None else [last]
    spikes = pl.concat([lost for _, lost in results])
    assert set(spikes["reason"]) <= {"spike"}
    return pl.concat([kept for kept, _ in results]), spikes["line"].to_list()


def moved(frame: pl.DataFrame, row: int, factor: float, *columns: str) -> pl.DataFrame:
    """`frame` with prices of one bar multiplied."""
    here = pl.int_range(len(frame)) == row
    names = columns or ("open", "high", "low", "close")
    return frame.with_columns(
        pl.when(here).then(pl.col(c) * factor).otherwise(pl.col(c)).alias(c) for c in names
    )


def flagged(kept: pl.DataFrame) -> list[int]:
    return kept.filter("outlier")["line"].to_list()


def test_clean_bars_are_neither() -> None:
    kept, spikes = judge(minutes(5_000, START))
    assert (flagged(kept), spikes, len(kept)) == ([], [], 5_000)


@pytest.mark.parametrize(("back", "is_spike"), [(0.0, True), (0.19, True), (0.25, False), (1.0, False)])
def test_only_a_spike_that_reverts_by_four_fifths_is_refused(back: float, is_spike: bool) -> None:
    """A move of 60 σ at bar 300 of which the share `back` is left at the next bar."""
    frame = minutes(600, START)
    before, after = frame["close"][299], frame["close"][301]
    frame = moved(frame, 300, before * math.exp(60e-4) / frame["close"][300])
    frame = moved(frame, 301, before * math.exp(back * 60e-4) / after)
    kept, spikes = judge(frame)
    assert spikes == ([300] if is_spike else [])
    assert (300 in flagged(kept)) is not is_spike
    if back == 0.0:
        assert flagged(kept) == []  # the bar after the spike is measured from before it


def test_a_move_below_twenty_sigma_stays_and_is_flagged() -> None:
    frame = moved(minutes(600, START), 300, math.exp(14e-4))
    kept, spikes = judge(frame)
    assert spikes == []
    assert 300 in flagged(kept)


def test_the_last_bar_is_never_refused() -> None:
    frame = moved(minutes(600, START), 299, 1.05)
    kept, spikes = judge(frame[:300])
    assert (spikes, flagged(kept)) == ([], [299])
    assert judge(frame[:301])[1] == [299]


def test_a_wick_is_flagged_not_refused() -> None:
    kept, spikes = judge(moved(minutes(600, START), 300, 1.02, "high"))
    assert (flagged(kept), spikes) == ([300], [])


def test_too_few_returns_say_nothing() -> None:
    assert judge(moved(minutes(90, START), 60, 1.05))[1] == []  # 59 returns before it
    assert judge(moved(minutes(90, START), 61, 1.05))[1] == [61]


def test_returns_do_not_reach_over_sessions() -> None:
    """A gap of 5 % overnight on XNYS is neither, and bars outside sessions are left alone."""
    frame = minutes(3 * 1_440, datetime(2024, 1, 2, tzinfo=UTC))
    night = frame["time"] >= datetime(2024, 1, 3, tzinfo=UTC)
    prices = ("open", "high", "low", "close")
    frame = frame.with_columns(
        pl.when(night).then(pl.col(c) * 1.05).otherwise(pl.col(c)).alias(c) for c in prices
    )
    kept, spikes = judge(moved(frame, 600, 2.0), XNYS)  # 10:00 UTC, before the open
    assert (flagged(kept), spikes, len(kept)) == ([], [], len(frame))


def sigma_by_hand(times: list[datetime], close: list[float]) -> list[float]:
    """σ of the module's formula on 24/7 sessions (UTC days), one bar at a time."""
    season: dict[int, list[float]] = {}
    out, relatives, squares = [], [], []
    today: dict[int, list[float]] = {}
    for i, time in enumerate(times):
        if i and time.date() != times[i - 1].date():
            for bucket, values in today.items():
                seen = season.setdefault(bucket, [0, 0.0])
                seen[0] += 1
                seen[1] += max(1 / seen[0], 0.1) * (sum(values) / len(values) - seen[1])
            today = {}
        bucket = (time.hour * 60 + time.minute) // 15
        count, typical = season.get(bucket, [0, 0.0])
        if count < 5:
            typical = sum(squares) / len(squares) if len(squares) >= 30 else math.nan
        window = relatives[-60:]
        level = max(sum(window) / len(window), 0.25) if len(window) >= 30 else math.nan
        out.append(math.sqrt(typical * level))
        first = not i or time.date() != times[i - 1].date()
        if not first:
            square = math.log(close[i] / close[i - 1]) ** 2
            squares.append(square)
            if not math.isnan(typical):
                relatives.append(min(square / typical, 100.0))
            today.setdefault(bucket, []).append(square if math.isnan(typical) else min(square, 100 * typical))
    return out


def test_sigma_agrees_with_the_formula() -> None:
    rng = np.random.default_rng(3)
    count = 7 * 1_440 + 300
    hours = np.arange(count) / 60 % 24
    close = 100 * np.exp(np.cumsum(rng.standard_t(3, count) * 1e-4 * (1 + np.abs(hours - 12) / 6)))
    frame = minutes(count, START).with_columns(
        close=pl.Series(close), high=pl.Series(close), low=pl.Series(close)
    )
    sigma = np.array(sigma_by_hand(frame["time"].to_list(), close.tolist()))
    returns = np.abs(np.diff(np.log(close), prepend=np.nan))
    returns[frame["time"].dt.date().to_numpy() != np.roll(frame["time"].dt.date().to_numpy(), 1)] = np.nan
    kept, spikes = judge(frame)
    assert spikes == []
    expected = np.flatnonzero(returns > 8 * sigma).tolist()
    assert len(expected) > 3
    assert flagged(kept) == expected


def wild() -> pl.DataFrame:
    frame = minutes(4_500, START)
    for row, factor in ((700, 1.03), (1_500, 0.98), (3_100, 1.004), (4_480, 1.05)):
        frame = moved(frame, row, factor)
    return frame


@given(st.integers(1, 4_500))
@settings(max_examples=15, deadline=None)
def test_the_cut_into_chunks_does_not_matter(size: int) -> None:
    size = max(size, 40)
    whole, cut = judge(wild()), judge(wild(), size=size)
    assert whole[0].equals(cut[0])
    assert whole[1] == cut[1] == [700, 1_500, 3_100, 4_480]


@given(st.integers(60, 4_400))
@settings(max_examples=15, deadline=None)
def test_later_bars_change_nothing_but_the_last(end: int) -> None:
    """No rule looks ahead further than the next bar, none uses the whole sample."""
    kept, spikes = judge(wild())
    early, early_spikes = judge(wild()[:end])
    until = pl.col("line") < end - 1
    assert early.filter(until).equals(kept.filter(until))
    assert [s for s in early_spikes if s < end - 1] == [s for s in spikes if s < end - 1]


def test_nothing_waits_where_nothing_came() -> None:
    check = OutlierCheck(ALWAYS, outlier_sigma=8, spike_sigma=20, spike_reversal=0.8)
    assert check.flush() is None
