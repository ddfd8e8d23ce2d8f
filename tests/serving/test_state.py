"""The tail of the lake: exactly the last bars, and no more files than needed."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from polars.testing import assert_frame_equal

from marketray.lake import Lake
from marketray.serving.schemas import Bar
from marketray.serving.state import BAR_COLUMNS, bars_frame, read_tail
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market, bars_json

MINUTE = timedelta(minutes=1)


def test_tail_is_the_last_bars(settings: Settings, market: Market) -> None:
    lake = Lake(settings.lake_uri)
    expected = market.bars.select(BAR_COLUMNS)
    assert len(lake.partitions("bronze/bars")) == 2
    assert market.bars["time"].dt.month().tail(3_000).n_unique() == 1
    for rows in (1, 3_000, 7_000, 8_000, 9_000):
        assert_frame_equal(read_tail(lake, INSTRUMENT, rows, interval=MINUTE), expected.tail(rows))


def test_bars_that_end_later_are_left_out(settings: Settings, market: Market) -> None:
    lake, end = Lake(settings.lake_uri), market.bars["time"][5_000]
    got = read_tail(lake, INSTRUMENT, 10, interval=MINUTE, until=end)
    assert_frame_equal(got, market.bars.select(BAR_COLUMNS).slice(4_990, 10))


def test_absent_columns_and_instruments(settings: Settings, market: Market) -> None:
    lake = Lake(settings.lake_uri)
    for partition in lake.partitions("bronze/bars"):
        manifest = lake.manifest("bronze/bars", partition)
        assert manifest is not None
        lake.write(
            "bronze/bars", partition, lake.read("bronze/bars", partition).drop(["bid", "ask"]), manifest
        )
    got = read_tail(lake, INSTRUMENT, 5, interval=MINUTE)
    assert got.columns == list(BAR_COLUMNS)
    assert got["bid"].null_count() == 5
    assert got["volume"].to_list() == market.bars["volume"].tail(5).to_list()
    assert read_tail(lake, "OTHER", 5, interval=MINUTE).is_empty()


def test_request_bars_become_the_same_table(market: Market) -> None:
    bars = [Bar.model_validate(b) for b in bars_json(market.bars.tail(50))]
    assert_frame_equal(bars_frame(bars), market.bars.tail(50).select(BAR_COLUMNS))
    assert bars_frame(bars).schema["time"] == pl.Datetime("us", "UTC")
