"""Rules for single bars and for their order, each with the exact rows and reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.ingest.quality import OrderCheck, row_reasons

START = datetime(2024, 1, 30, tzinfo=UTC)


def bars(minutes: list[int], closes: list[float] | None = None) -> pl.DataFrame:
    """Flat bars at these minutes, numbered from line 1."""
    close = [1.0] * len(minutes) if closes is None else closes
    times = pl.Series([START + timedelta(minutes=m) for m in minutes], dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"line": range(1, len(minutes) + 1), "time": times, "close": close})
    frame = frame.with_columns(open="close", high="close", low="close", source=pl.lit("f"))
    return frame.with_columns(pl.lit(None, pl.String).alias("reason"))


def judge(*chunks: pl.DataFrame) -> tuple[list[int], list[tuple[int, str]]]:
    """Lines accepted, and lines refused with their reason."""
    check = OrderCheck()
    results = [check.push(chunk) for chunk in chunks]
    last = check.flush()
    results += [] if last is None else [last]
    good = [line for kept, _ in results for line in kept["line"]]
    bad = [row for _, lost in results for row in lost.select("line", "reason").iter_rows()]
    return good, bad


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"low": 0.0}, "non_positive_price"),
        ({"open": -1.0}, "non_positive_price"),
        ({"high": 9.9}, "ohlc_inconsistent"),
        ({"low": 10.5}, "ohlc_inconsistent"),
        ({"open": 12.5}, "ohlc_inconsistent"),
        ({"close": 8.5}, "ohlc_inconsistent"),
        ({"volume": -1.0}, "negative_volume"),
        ({"volume": 0.0}, None),
        ({"volume": None}, None),
        ({"bid": 0.0}, "non_positive_quote"),
        ({"ask": 10.4}, "crossed_quote"),
        ({"bid": None}, None),
        ({"reason": "missing_open", "low": 0.0}, "missing_open"),
        ({"time": START + timedelta(minutes=60)}, None),
        ({"time": START + timedelta(minutes=61)}, "after_clock"),
    ],
)
def test_rules_of_a_single_bar(change: dict[str, object], reason: str | None) -> None:
    good = {"time": START, "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}
    row = {**good, "bid": 10.5, "ask": 11.5, "reason": None, **change}
    schema = dict.fromkeys(row, pl.Float64) | {"time": pl.Datetime("us", "UTC"), "reason": pl.String}
    frame = pl.DataFrame([row], schema=schema)
    judged = row_reasons(frame, interval_minutes=1, clock=START + timedelta(minutes=61))
    assert judged["reason"].to_list() == [reason]
    assert judged.drop("reason").equals(frame.drop("reason"))


def test_rules_without_volume_quotes_or_clock() -> None:
    assert row_reasons(bars([0, 10**6]), interval_minutes=1)["reason"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("minutes", "refused"),
    [
        ([0, 1, 2, 5], []),
        ([0, 1, 1, 2], [(3, "duplicate")]),
        ([0, 1, 2, 0, 3], [(4, "out_of_order")]),
        ([0, 1, 3, 2, 4], [(4, "out_of_order")]),  # two bars swapped
        ([0, 1, 900, 2, 3, 4], [(3, "out_of_order")]),  # one stamp far ahead
        ([900, 1, 2, 3], [(1, "out_of_order")]),
        ([0, 1, 2, 900], []),  # nothing says that the last is wrong
        ([0, 1, 2, 3, 1, 2, 3, 4], [(5, "out_of_order"), (6, "out_of_order"), (7, "duplicate")]),
    ],
)
def test_order(minutes: list[int], refused: list[tuple[int, str]]) -> None:
    good, bad = judge(bars(minutes))
    assert bad == refused
    assert good == [i for i in range(1, len(minutes) + 1) if i not in dict(refused)]


def test_a_second_bar_at_the_same_time_with_other_values() -> None:
    frame = bars([0, 1, 1, 1, 2], [1.0, 2.0, 3.0, 2.0, 1.0])
    assert judge(frame) == ([1, 2, 5], [(3, "conflicting_duplicate"), (4, "duplicate")])
    assert judge(*(frame[i : i + 1] for i in range(5)))[1] == [(3, "conflicting_duplicate"), (4, "duplicate")]


def brute_force(minutes: list[int]) -> tuple[list[int], list[tuple[int, str]]]:
    """The rule's text, one bar at a time."""
    good: list[int] = []
    bad, last = [], None
    for i, minute in enumerate(minutes):
        before = minutes[i - 1] if i else -1
        following = minutes[i + 1 : i + 3]
        ahead = len(following) == 2 and max(following) < minute and following[0] > before
        if ahead or (last is not None and minute < last):
            bad.append((i + 1, "out_of_order"))
        elif minute == last:
            bad.append((i + 1, "duplicate"))
        else:
            good.append(i + 1)
            last = minute
    return good, bad


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 30))
def test_order_agrees_with_the_rule_however_the_rows_are_cut(minutes: list[int], size: int) -> None:
    frame = bars(minutes)
    good, bad = judge(*(frame[i : i + size] for i in range(0, len(minutes), size)))
    assert (good, sorted(bad)) == brute_force(minutes)


def test_nothing_waits_where_nothing_came() -> None:
    assert OrderCheck().flush() is None
