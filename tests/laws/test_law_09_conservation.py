"""Law 9, conservation: rows in = rows out + rows quarantined (+ rows dropped by a declared rule)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketray.errors import LakeError
from marketray.ingest.intake import ingest_source
from marketray.ingest.record import IngestResult
from marketray.lake import Lake, Manifest
from marketray.settings import load_settings
from tests.ingest.made_bars import as_text, bronze, ingest, minutes

FLAWS = (
    "x,1,2,0.5,1,1",
    "2024-01-30T00:00:00Z,1,2,0.5,1,1",
    "2024-01-30 00:00,1,2,0.5,1,1",
    "2099-01-01T00:00:00Z,1,2,0.5,1,1",
    "2024-01-30T00:00:01Z,,,,,",
    "1,2,3",
    '"',
    "2024-01-30T03:00:00Z,1,0.5,2,1,1",
    "2024-01-30T03:00:00Z,nan,inf,2,1,abc",
    ",,,,,",
)


def check(home: Path, result: IngestResult, rows: int) -> None:
    """Counts of the result, of every partition and of what is really there agree."""
    lake = Lake(str(home / "lake"))
    stored, lost = bronze(home), bronze(home, "quarantine/bars")
    assert result.rows_in == rows
    assert result.rows_in == result.rows_out + result.rows_quarantined + result.rows_dropped
    assert (len(stored), len(lost)) == (result.rows_out, result.rows_quarantined)
    manifest = lake.read_json("manifests/ingest/TEST.json")
    assert manifest["rows_in"] == rows
    assert manifest["rows_out"] == result.rows_out
    by_reason = manifest["detail"]["report"]["reasons"]
    assert sum(by_reason.values()) == result.rows_quarantined
    if len(lost):
        assert dict(lost.group_by("reason").len().iter_rows()) == by_reason
    for dataset in ("bronze/bars", "quarantine/bars"):
        for partition in lake.partitions(dataset):
            found = lake.manifest(dataset, partition)
            assert found.rows_in == found.rows_out + found.rows_quarantined + found.rows_dropped
            assert found.rows_out == lake.read(dataset, partition).num_rows
            refused = len(lost.filter(pl.col("month") == partition["month"])) if len(lost) else 0
            assert found.rows_quarantined == (refused if dataset == "bronze/bars" else 0)


@given(st.lists(st.tuples(st.integers(0, 299), st.sampled_from(FLAWS)), max_size=40))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_of_a_file_gets_lost(
    tmp_path_factory: pytest.TempPathFactory, flaws: list[tuple[int, str]]
) -> None:
    home = tmp_path_factory.mktemp("law9")
    lines = as_text(minutes(300)).write_csv().splitlines()
    for place, flaw in flaws:
        lines.insert(1 + place, flaw)
    (home / "bars.csv").write_text("\n".join(lines))
    check(home, ingest(home, home / "bars.csv"), len(lines) - 1)


@pytest.mark.parametrize("form", ["parquet", "ndjson"])
def test_no_row_of_other_formats_gets_lost(home: Path, form: str) -> None:
    rng = np.random.default_rng(4)
    order = pl.Series(np.where(rng.random(3_000) < 0.1, rng.integers(0, 3_000, 3_000), np.arange(3_000)))
    bars = minutes(3_000)[order]
    bars = bars.with_columns(low=pl.when(order % 13 == 1).then(-1.0).otherwise("low"))
    path = home / f"bars.{form}"
    bars.write_parquet(path) if form == "parquet" else as_text(bars).write_ndjson(path)
    result = ingest(home, path)
    assert result.rows_quarantined > 300
    check(home, result, 3_000)


def test_rows_of_other_instruments_are_counted_as_dropped(home: Path) -> None:
    bars = minutes(300).with_columns(symbol=pl.Series(["A", "B", "C"] * 100))
    bars.write_parquet(home / "bars.parquet")
    result = ingest(home, home / "bars.parquet", source={"select": {"symbol": "B"}})
    assert (result.rows_out, result.rows_dropped) == (100, 200)
    check(home, result, 300)


def test_candles_of_a_response_are_counted_one_by_one(home: Path) -> None:
    stamps = as_text(minutes(30))["time"].to_list()
    candles = [
        {"time": t, "mid": {"o": "1", "h": "2", "l": "1", "c": "2"}, "volume": 1, "complete": i < 29}
        for i, t in enumerate(stamps)
    ]
    lines = [
        json.dumps({"instrument": i, "candles": c}) for i, c in (("TEST", candles), ("OTHER", candles[:4]))
    ]
    (home / "bars.json").write_text("\n".join([*lines, "[]"]))
    result = ingest(home, home / "bars.json", source={"layout": "oanda"})
    assert (result.rows_out, result.rows_quarantined) == (29, 6)
    check(home, result, 35)


def test_kept_rows_count_too_where_sources_meet_in_a_month(home: Path) -> None:
    bars = minutes(600)
    as_text(bars).write_csv(home / "a.csv")
    flawed = bars[200:300].with_columns(low=pl.when(pl.int_range(100) < 5).then(-1.0).otherwise("low"))
    as_text(flawed).write_csv(home / "b.csv")
    ingest(home, home / "a.csv")
    result = ingest(home, home / "b.csv")
    found = Lake(str(home / "lake")).manifest("bronze/bars", {"instrument": "TEST", "month": "2024-01"})
    assert (result.rows_in, result.rows_out, result.rows_quarantined) == (100, 95, 5)
    assert found.detail["rows_kept"] == 205 + 300  # the five refused bars were good in the older file
    assert found.rows_in == found.rows_out + 5


def test_simulated_bars_are_conserved(home: Path) -> None:
    source = {"kind": "simulator", "bars": 11_000}
    result = ingest_source(
        load_settings(overrides={"home": str(home), "instrument": "TEST", "source": source})
    )
    check(home, result, 11_000)


def test_a_manifest_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(LakeError, match="rows_in=3 but rows_out=1"):
        Manifest("k", "c", rows_in=3, rows_out=1, rows_quarantined=1)
