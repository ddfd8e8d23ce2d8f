"""The online state takes each bar once, in order, after its end; what it refuses changes nothing."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketray.errors import DataError
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.online import OnlineState
from marketray.lake import Lake
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, MARKET, make_bars, sessions_of, store

CATALOG = build_catalog(FeatureSettings(), COLUMNS)
LOOKBACK = CATALOG.lookback
BARS = make_bars(1_700, seed=35)
MINUTE = timedelta(minutes=1)
NEXT = BARS.row(1_600, named=True)
LAST = BARS.row(1_599, named=True)
NEXT_END = NEXT["time"] + MINUTE
SATURDAY = datetime(2024, 2, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def state() -> OnlineState:
    """A state at the end of 1,600 bars; refused bars must leave it so for all tests."""
    return OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600))


@pytest.mark.parametrize(
    ("changes", "clock", "reason", "message"),
    [
        ({"time": "2024-02-20"}, None, "malformed", r"time='2024-02-20'; required: a datetime with its zone"),
        (
            {"time": NEXT["time"].replace(tzinfo=None)},
            None,
            "malformed",
            r"required: a datetime with its zone",
        ),
        ({"close": None}, None, "malformed", r"got close=None; required: a finite number"),
        ({"close": float("nan")}, None, "malformed", r"got close=nan; required: a finite number"),
        ({"volume": float("inf")}, None, "malformed", r"got volume=inf; required: a finite number"),
        ({"open": "1"}, None, "malformed", r"got open='1'; required: a finite number"),
        ({"open": True}, None, "malformed", r"got open=True; required: a finite number"),
        ({}, NEXT_END - timedelta(microseconds=1), "future", r"future: it ends at .*; required: by 2024"),
        (LAST, None, "duplicate", r": duplicate; required: an open at or after 2024"),
        ({**LAST, "close": LAST["open"]}, None, "conflicting_duplicate", r": conflicting_duplicate; req"),
        ({"time": BARS["time"][1_500]}, None, "late", r": late; required: an open at or after 2024"),
        ({"time": LAST["time"] + MINUTE / 2}, None, "overlapping", r": overlapping; required: an open at"),
        ({"low": -1.0}, None, "non_positive_price", r"low=-1\.0.*; required: prices above 0"),
        ({"high": 1.0}, None, "ohlc_inconsistent", r"high=1\.0.*; required: low <= open, close <= high"),
        ({"volume": -1.0}, None, "negative_volume", r"volume=-1\.0.*; required: a volume of at least 0"),
        ({"bid": 0.0}, None, "non_positive_quote", r"bid=0\.0.*; required: bid and ask above 0"),
        ({"ask": 1.0}, None, "crossed_quote", r"ask=1\.0.*; required: bid <= ask"),
        ({"time": SATURDAY}, None, "outside_session", r": outside_session; required: an open inside .* CMES"),
    ],
)
def test_a_refused_bar_is_named_and_changes_nothing(
    state: OnlineState, changes: dict[str, Any], clock: datetime | None, reason: str, message: str
) -> None:
    before, row = state.bars.clone(), state.row
    refused = state.refusal({**NEXT, **changes}, clock)
    assert refused is not None
    assert refused.reason == reason
    with pytest.raises(DataError, match=rf"^bar.*: {reason}.*{message.lstrip(': ').removeprefix(reason)}"):
        state.append({**NEXT, **changes}, clock)
    assert_frame_equal(state.bars, before)
    assert state.row is row


def test_many_bars_are_refused_as_if_they_were_appended_one_by_one(state: OnlineState) -> None:
    """In one go, so that thousands of posted bars take no longer than a request may."""
    nexts = BARS.slice(1_600, 40).to_dicts()
    given = [
        LAST, nexts[0], nexts[0], {**nexts[1], "low": -1.0}, nexts[1], {**nexts[1], "close": 1.0}, nexts[5],
        nexts[3], {"time": nexts[6]["time"]}, {**nexts[7], "time": SATURDAY + timedelta(days=7)},
        {**nexts[8], "time": nexts[8]["time"].astimezone(ZoneInfo("Asia/Tokyo"))}, *nexts[9:],
        {**nexts[39], "time": SATURDAY + timedelta(days=8)},
    ]  # fmt: skip
    clock = SATURDAY + timedelta(days=8)
    one_by_one = OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600))
    expected = []
    for bar in given:
        expected.append(one_by_one.refusal(bar, clock))
        if expected[-1] is None:
            one_by_one.append(bar, clock)
    assert state.refusals(given, clock) == expected
    reasons = [None if r is None else r.reason for r in expected]
    assert reasons[:10] == [
        "duplicate", None, "duplicate", "non_positive_price", None, "conflicting_duplicate", None, "late",
        "malformed", "outside_session",
    ]  # fmt: skip
    assert reasons[-1] == "future"
    assert state.refusals([], None) == []


def test_a_missing_column_is_malformed(state: OnlineState) -> None:
    bar = {name: value for name, value in NEXT.items() if name != "bid"}
    with pytest.raises(
        DataError, match=r"malformed: got .* which lacks \['bid'\]; required: \['time', 'open"
    ):
        state.append(bar, None)


def test_a_bar_that_ends_at_the_clock_is_taken_and_refused_the_second_time() -> None:
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600))
    row = state.append(NEXT, NEXT_END)
    assert (row.time, row.decision_at, row.names) == (NEXT["time"], NEXT_END, CATALOG.names)
    assert state.row is row
    with pytest.raises(DataError, match="duplicate"):
        state.append(NEXT, NEXT_END)


def test_bars_of_another_zone_are_the_same_bars() -> None:
    state, other = (OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600)) for _ in range(2))
    zoned = {**NEXT, "time": NEXT["time"].astimezone(ZoneInfo("Asia/Tokyo"))}
    np.testing.assert_array_equal(other.append(zoned, None).values, state.append(NEXT, None).values)
    assert_frame_equal(other.bars, state.bars)


def test_an_optional_value_may_be_unknown() -> None:
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600))
    shown = dict(zip(CATALOG.names, state.append({**NEXT, "volume": None}, None).values, strict=True))
    assert np.isnan(shown["volume_ratio_20"])
    assert not np.isnan(shown["return_60"])


def test_memory_does_not_grow() -> None:
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600))
    for bar in BARS.slice(1_600, 40).iter_rows(named=True):
        state.append(bar, None)
        assert state.bars.height == LOOKBACK
        assert state.bars.estimated_size() <= LOOKBACK * 8 * 8 + 1_024
        assert state.bars.n_chunks() == 1


def test_a_bar_outside_all_sessions_is_kept_where_asked() -> None:
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(1_600), outside_sessions="keep")
    bar = {**NEXT, "time": SATURDAY}
    history = pl.concat([BARS.head(1_600), pl.DataFrame([bar], schema=BARS.schema)])
    expected = compute(CATALOG, history, sessions_of(history["time"])).tail(1)
    row = state.append(bar, None)
    assert np.isnan(row.values[CATALOG.names.index("minutes_since_open")])
    assert_frame_equal(row.frame(), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_a_history_too_short_is_refused_unless_it_is_all() -> None:
    with pytest.raises(DataError, match=f"bars: got {LOOKBACK - 1}; required: the last {LOOKBACK}"):
        OnlineState.from_bars(CATALOG, MARKET, BARS.head(LOOKBACK - 1))
    with pytest.raises(DataError, match=r"which lack \['ask', 'bid'\]|which lack \['bid', 'ask'\]"):
        OnlineState.from_bars(CATALOG, MARKET, BARS.drop("bid", "ask"))
    assert OnlineState.from_bars(CATALOG, MARKET, BARS.head(3), from_start=True).bars.height == 3


def test_the_lake_gives_its_last_bars_up_to_a_time(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert OnlineState.from_lake(CATALOG, MARKET, lake, "TEST_USD").row is None
    store(lake, "TEST_USD", BARS)
    state = OnlineState.from_lake(CATALOG, MARKET, lake, "TEST_USD")
    assert_frame_equal(state.bars, BARS.select(state.bars.columns).tail(LOOKBACK))
    until = BARS["time"][1_600]
    earlier = OnlineState.from_lake(CATALOG, MARKET, lake, "TEST_USD", until=until)
    assert earlier.row is not None
    assert earlier.row.decision_at <= until
    assert earlier.append(NEXT, None).time == NEXT["time"]


def test_a_state_is_never_pickled(state: OnlineState) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled; required: OnlineState\.from_lake"):
        pickle.dumps(state)
