"""Live bars: each once, in any order, all or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketray.errors import StoreError
from marketray.features.tail import bar_schema
from marketray.serving.store import Store
from marketray.serving.store.live_bars import ConflictingBarError

START = datetime(2024, 5, 1, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bars(*minutes: int, close: float = 5000.1) -> pl.DataFrame:
    """Whole bars at these minutes after `START`, without quotes."""
    rows = [(START + m * MINUTE, 5000.0 + m, 5010.0 + m, 4990.0, close + m, 0.1 * m) for m in minutes]
    return pl.DataFrame(rows, schema=list(bar_schema().items())[:6], orient="row")


def whole(frame: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, pl.Float64).alias(c) for c in bar_schema() if c not in frame.columns]
    return frame.with_columns(absent).select(list(bar_schema()))


def test_bars_come_back_as_they_were_and_the_same_ones_are_known(store: Store) -> None:
    assert store.bars.last("SPX500_USD") is None
    assert_frame_equal(store.bars.since("SPX500_USD"), whole(bars()))
    assert store.bars.append("SPX500_USD", bars(0, 1, 2)) == {"taken": 3, "known": 0}
    assert store.bars.append("SPX500_USD", bars(3, 2, 1, 3)) == {"taken": 1, "known": 3}
    assert store.bars.append("NAS100_USD", bars(7)) == {"taken": 1, "known": 0}
    assert store.bars.append("NAS100_USD", bars()) == {"taken": 0, "known": 0}
    assert_frame_equal(store.bars.since("SPX500_USD"), whole(bars(0, 1, 2, 3)))
    assert_frame_equal(store.bars.since("SPX500_USD", START), whole(bars(1, 2, 3)))
    assert_frame_equal(store.bars.since("SPX500_USD", START, limit=2), whole(bars(1, 2)))
    assert store.bars.last("SPX500_USD") == START + 3 * MINUTE


def test_times_of_any_zone_and_nan_are_taken_for_what_they_mean(store: Store) -> None:
    given = bars(0).with_columns(
        pl.col("time").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms"), bid=pl.lit(float("nan"))
    )
    store.bars.append("SPX500_USD", given)
    assert_frame_equal(store.bars.since("SPX500_USD"), whole(bars(0)))
    assert store.bars.append("SPX500_USD", bars(0)) == {"taken": 0, "known": 1}


def test_another_bar_at_a_known_time_is_refused_and_nothing_taken(store: Store) -> None:
    store.bars.append("SPX500_USD", bars(0, 1))
    message = r"bar of SPX500_USD, time=2024-05-01 14:31:00.*: differs .*\{'close': \(5001.1, 5002.0\)\}"
    with pytest.raises(ConflictingBarError, match=message):
        store.bars.append("SPX500_USD", pl.concat([bars(2), bars(1, close=5001.0), bars(0)]))
    with pytest.raises(ConflictingBarError, match=r"differs .*'volume': \(0.0, None\)"):
        store.bars.append("SPX500_USD", bars(0).drop("volume"))
    with pytest.raises(ConflictingBarError, match="two different ones at time=2024-05-01 14:35:00"):
        store.bars.append("SPX500_USD", pl.concat([bars(5), bars(5, close=4999.0)]))
    assert_frame_equal(store.bars.since("SPX500_USD"), whole(bars(0, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.rename({"close": "last"}), r"got the columns .*'last'.*; required: time and \['open'"),
        (lambda b: b.drop("low"), "got the columns"),
        (lambda b: b.with_columns(pl.col("time").dt.replace_time_zone(None)), "time is Datetime.*with zone"),
        (lambda b: b.with_columns(close=pl.lit(float("nan"))), r"\['close'\] have nulls; required: a time"),
    ],
)
def test_bars_that_are_not_whole_are_refused(store: Store, change: object, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store.bars.append("SPX500_USD", change(bars(0)))  # type: ignore[operator]
    assert store.bars.last("SPX500_USD") is None


def test_the_newest_bars_of_an_open_and_closed_span(store: Store) -> None:
    store.bars.append("SPX500_USD", bars(0, 1, 2, 3, 4))
    store.bars.append("NAS100_USD", bars(2, 9))
    after, until = START + MINUTE, START + 3 * MINUTE
    for limit, expected in ((1, (3,)), (2, (2, 3)), (9, (2, 3))):
        assert_frame_equal(
            store.bars.newest("SPX500_USD", limit, after=after, until=until), whole(bars(*expected))
        )
    assert_frame_equal(store.bars.newest("SPX500_USD", 2), whole(bars(3, 4)))
    assert store.bars.count("SPX500_USD", after=after, until=until) == 2
    assert [store.bars.count(name) for name in ("SPX500_USD", "NAS100_USD", "X")] == [5, 2, 0]


def test_a_late_bar_is_among_the_arrivals(store: Store) -> None:
    store.bars.append("SPX500_USD", bars(0, 3))
    got, seen = store.bars.arrivals("SPX500_USD")
    assert_frame_equal(got, whole(bars(0, 3)))
    store.bars.append("NAS100_USD", bars(4))
    store.bars.append("SPX500_USD", bars(1, 2))
    store.bars.append("SPX500_USD", bars(4))
    got, seen = store.bars.arrivals("SPX500_USD", seen, limit=2)
    assert_frame_equal(got, whole(bars(1, 2)))
    got, seen = store.bars.arrivals("SPX500_USD", seen)
    assert_frame_equal(got, whole(bars(4)))
    got, again = store.bars.arrivals("SPX500_USD", seen)
    assert (len(got), again) == (0, seen)
    assert store.bars.prune(START + 9 * MINUTE) == 6
    store.bars.append("SPX500_USD", bars(9))
    assert_frame_equal(store.bars.arrivals("SPX500_USD", seen)[0], whole(bars(9)))


def test_old_bars_are_deleted(store: Store) -> None:
    store.bars.append("SPX500_USD", bars(0, 1, 2))
    assert store.bars.prune(START + 2 * MINUTE) == 2
    assert_frame_equal(store.bars.since("SPX500_USD"), whole(bars(2)))
