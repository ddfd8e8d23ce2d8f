"""Sizes at the quotes: from a file through the lake to features, the online state and a request."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from marketray.bars import COLUMNS, OPTIONAL
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.online import OnlineState
from marketray.features.stage import available_columns, run_features
from marketray.features.tail import read_tail
from marketray.ingest.sources.files import CHUNK_ROWS
from marketray.lake import Lake
from marketray.serving.schemas import Bar, PredictRequest
from marketray.serving.state import bars_frame
from marketray.sessions import trading_sessions
from tests.ingest.made_bars import as_text, bronze, ingest, minutes, refused, settings_for

FEATURE = '''
import polars as pl
from marketray.features.user import feature

@feature(lookback=1, inputs=["bid_size", "ask_size"])
def book_imbalance():
    """(bid_size - ask_size) / (bid_size + ask_size)"""
    bid, ask = pl.col("bid_size"), pl.col("ask_size")
    return (bid - ask) / (bid + ask)
'''


def quoted(count: int) -> pl.DataFrame:
    row = pl.int_range(pl.len())
    return minutes(count).with_columns(
        bid=(pl.col("close") * 0.9999).round(6),
        ask=(pl.col("close") * 1.0001).round(6),
        bid_size=(row % 7).cast(pl.Float64),
        ask_size=(row % 5 + 1).cast(pl.Float64),
    )


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_sizes_arrive_as_they_are_and_negative_ones_do_not(home: Path, kind: str) -> None:
    bars = quoted(200)
    given = bars.with_columns(bid_size=pl.when(pl.int_range(pl.len()) == 5).then(-1.0).otherwise("bid_size"))
    path = home / f"bars.{kind}"
    if kind == "csv":
        as_text(given).write_csv(path)
    elif kind == "ndjson":
        as_text(given).write_ndjson(path)
    else:
        given.write_parquet(path)
    result = ingest(home, path)
    assert (result.has_quotes, result.has_sizes, result.rows_quarantined) == (True, True, 1)
    first = 1 if kind != "csv" else 2  # the line after the header
    assert refused(home) == [(5 + first, "negative_size")]
    kept = bars.filter(pl.int_range(pl.len()) != 5).select(COLUMNS)
    assert bronze(home).select(COLUMNS).equals(kept)
    assert bronze(home, "quarantine/bars")["bid_size"].cast(pl.Float64).to_list() == [-1.0]


def test_a_source_without_sizes_has_no_such_columns(home: Path) -> None:
    path = home / "bars.parquet"
    quoted(200).drop("bid_size", "ask_size").write_parquet(path)
    result = ingest(home, path)
    assert (result.has_quotes, result.has_sizes) == (True, False)
    assert bronze(home).columns == [c for c in COLUMNS if not c.endswith("_size")] + ["outlier", "month"]
    tail = read_tail(Lake(str(home / "lake")), "TEST", 3, interval=timedelta(minutes=1))
    assert tail.columns == list(COLUMNS)
    assert tail.select("bid_size", "ask_size").null_count().row(0) == (3, 3)


def test_a_longer_file_that_has_sizes_follows_one_that_had_none(home: Path) -> None:
    bars = quoted(CHUNK_ROWS // 64)
    bars.head(600).drop("bid_size", "ask_size").write_parquet(home / "a.parquet")
    ingest(home, home / "a.parquet")
    bars.slice(600).write_parquet(home / "b.parquet")
    ingest(home, home / "b.parquet")
    found = bronze(home)
    assert found["bid_size"].to_list() == [None] * 600 + bars["bid_size"].to_list()[600:]


@pytest.mark.usefixtures("ray_local")
def test_a_feature_of_sizes_is_the_same_in_batch_and_online(home: Path) -> None:
    bars = quoted(300)
    bars.write_parquet(home / "bars.parquet")
    (home / "book.py").write_text(FEATURE)
    settings = settings_for(
        home, home / "bars.parquet", features={"files": ["book.py"], "groups": ["user", "returns"]}
    )
    ingest(home, home / "bars.parquet")
    run_features(settings)
    lake = Lake(settings.lake_uri)
    assert set(OPTIONAL) < set(available_columns(lake, "TEST"))
    stored = pl.concat(pl.DataFrame(pl.from_arrow(t)) for _, t in lake.scan("silver/features"))
    size = bars["bid_size"] - bars["ask_size"]
    expected = size / (bars["bid_size"] + bars["ask_size"])
    assert stored["book_imbalance"].to_list() == expected.to_list()
    catalog = build_catalog(settings.features, COLUMNS)
    sessions = trading_sessions("24/7", bars["time"][0].date(), bars["time"][-1].date())
    assert compute(catalog, bars, sessions)["book_imbalance"].to_list() == expected.to_list()
    state = OnlineState.from_bars(catalog, settings.market, bars.head(299), from_start=True)
    wrong = state.refusal(bars.row(299, named=True) | {"ask_size": -2.0}, None)
    assert wrong is not None
    assert wrong.reason == "negative_size"
    assert "ask_size=-2.0; required: sizes of at least 0" in wrong.message
    row = state.append(bars.row(299, named=True), None)
    assert dict(zip(row.names, row.values, strict=True))["book_imbalance"] == expected[299]
    without = build_catalog(settings.features, ("time", "open", "high", "low", "close"))
    assert without.dropped == ("book_imbalance",)


def test_a_request_may_carry_sizes(home: Path) -> None:
    bars = quoted(20).rows(named=True)
    request = PredictRequest(bars=[Bar(**bar) for bar in bars])
    assert bars_frame(request.bars or ()).rows(named=True) == bars
    with pytest.raises(ValidationError, match="bid_size\n.*greater than or equal to 0"):
        Bar(**(bars[0] | {"bid_size": -1.0}))
    partly = [Bar(**bar) for bar in [bars[0] | {"ask_size": None}, *bars[1:]]]
    with pytest.raises(
        ValidationError, match=r"bars.ask_size: got 19 of 20; required: in every bar or in none"
    ):
        PredictRequest(bars=partly)
