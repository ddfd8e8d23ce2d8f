"""Files as sources: every layout gives the same bars, every line keeps its number, every flaw its error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.ingest.sources import files, text
from marketray.ingest.sources.files import RawChunk, read_bars
from marketray.settings import FileSource
from tests.ingest.made_bars import as_text, minutes

HEADER = "time,open,high,low,close,volume"


def read(path: Path, instrument: str = "TEST", **source: object) -> list[RawChunk]:
    declared = FileSource.model_validate({"paths": [str(path)], **source})
    return list(read_bars(declared, instrument, Path))


def rows(chunks: list[RawChunk]) -> pl.DataFrame:
    return pl.concat([c.rows for c in chunks], how="diagonal")


def broken(chunks: list[RawChunk]) -> list[tuple[int, str, str]]:
    return list(pl.concat([c.broken for c in chunks]).select("line", "reason", "text").iter_rows())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_delimiters_and_line_ends(tmp_path: Path, delimiter: str, end: str) -> None:
    bars = as_text(minutes(5))
    lines = bars.write_csv(separator=delimiter).replace("\n", end)
    path = tmp_path / "bars.csv"
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = rows(read(path))
    assert found["line"].to_list() == [2, 3, 4, 5, 6]
    assert found.drop("line").equals(bars)


def test_csv_without_a_last_line_end_and_compressed(tmp_path: Path) -> None:
    bars = as_text(minutes(3))
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress(bars.write_csv().rstrip("\n").encode()))
    assert rows(read(path)).drop("line").equals(bars)


def test_csv_lines_that_cannot_be_split_keep_their_text_and_number(tmp_path: Path) -> None:
    good = "2024-01-30T00:0{}:00Z,1,2,0.5,1.5,7"
    lines = [
        HEADER,
        good.format(0),
        "",
        "1,2",
        good.format(1),
        f'"{good.format(2)}',
        "   ",
        good.format(3) + ",9",
    ]
    path = tmp_path / "bars.csv"
    path.write_bytes("\n".join([*lines, good.format(4)]).encode() + b"\n2024,\xff1,2,3,4,5\n")
    chunks = read(path)
    assert broken(chunks) == [
        (6, "unreadable_row", f'"{good.format(2)}'),
        (4, "unreadable_row", "1,2"),
        (8, "unreadable_row", good.format(3) + ",9"),
    ]
    assert rows(chunks)["line"].to_list() == [2, 5, 9, 10]
    assert rows(chunks)["open"].to_list() == ["1", "1", "1", "\\xff1"]


def test_csv_quoted_fields_are_unquoted(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text('"time","open","high","low","close"\n"2024-01-30 00:00","1","2","0.5","1.5"\n')
    assert rows(read(path)).row(0) == (2, "2024-01-30 00:00", "1", "2", "0.5", "1.5")


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_lines_keep_their_numbers_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    bars = as_text(minutes(400))
    path = tmp_path / f"bars.{form}"
    bars.write_csv(path) if form == "csv" else bars.write_ndjson(path)
    whole = rows(read(path))
    monkeypatch.setattr(text, "_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(text, "CHUNK_ROWS", 7)
    chunks = read(path)
    assert max(len(c.rows) for c in chunks) <= 7
    assert rows(chunks).equals(whole)
    assert whole["line"].to_list() == list(range(2, 402) if form == "csv" else range(1, 401))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_MAX_LINE_BYTES", 100)
    monkeypatch.setattr(text, "_BLOCK_BYTES", 64)
    path = tmp_path / "bars.csv"
    path.write_text("x" * 1000)
    with pytest.raises(DataError, match="a line of over 100 bytes after line 0"):
        read(path)


def test_flat_ndjson_of_a_downloader(tmp_path: Path) -> None:
    path = tmp_path / "spx500_usd_m1_5years.ndjson"
    record = {
        "time": "2024-01-30T00:00:00.000000000Z",
        "instrument": "SPX500_USD",
        "granularity": "M1",
        "open": 4925.10,
        "high": 4926.0,
        "low": 4925,
        "close": 4925.7,
        "volume": 31,
        "collected_at": "2024-02-01T00:00:00Z",
    }
    path.write_text(
        json.dumps(record) + "\n\nnot json\n[1, 2]\n" + json.dumps(record | {"volume": None}) + "\n"
    )
    for layout in ("columns", "oanda"):
        chunks = read(path, "SPX500_USD", layout=layout)
        found = rows(chunks)
        assert found["line"].to_list() == [1, 5]
        assert found["open"].to_list() == ["4925.1", "4925.1"]
        assert found["volume"].to_list() == ["31", None]
        assert broken(chunks) == [(3, "unreadable_row", "not json"), (4, "unreadable_row", "[1, 2]")]


def test_oanda_candles_and_responses(tmp_path: Path) -> None:
    candle = {
        "time": "2024-01-30T00:00:00.000000000Z",
        "mid": {"o": "4925.1", "h": "4926.0", "l": "4925.0", "c": "4925.7"},
        "bid": {"o": "1", "h": "1", "l": "1", "c": "4925.5"},
        "ask": {"o": "1", "h": "1", "l": "1", "c": "4925.9"},
        "volume": 31,
        "complete": True,
    }
    unfinished = candle | {"time": "2024-01-30T00:01:00.000000000Z", "complete": False}
    response = {"instrument": "SPX500_USD", "granularity": "M1", "candles": [candle, unfinished]}
    other = candle | {"instrument": "NAS100_USD"}
    path = tmp_path / "candles.json"
    path.write_text("\n".join(json.dumps(x) for x in (candle, response, other)))
    chunks = read(path, "SPX500_USD", layout="oanda")
    found = rows(chunks)
    assert found["line"].to_list() == [1, 2, 2]
    expected = (
        "2024-01-30T00:00:00.000000000Z",
        "4925.1",
        "4926.0",
        "4925.0",
        "4925.7",
        "31",
        "4925.5",
        "4925.9",
    )
    assert found.row(0)[1:9] == expected
    assert found["complete"].to_list() == [True, True, False]
    assert broken(chunks) == [(3, "other_instrument", json.dumps(other))]


def test_parquet_columns_are_found_mapped_and_selected(tmp_path: Path) -> None:
    bars = minutes(6)
    stored = bars.rename({"close": "last", "time": "Timestamp"}).with_columns(
        contract=pl.Series(["A", "B"] * 3)
    )
    path = tmp_path / "bars.parquet"
    stored.write_parquet(path)
    chunks = read(path, columns={"close": "last"}, select={"contract": "B"})
    found = rows(chunks)
    assert found["line"].to_list() == [2, 4, 6]
    assert found.drop("line").equals(bars.gather([1, 3, 5]))
    assert [c.not_selected for c in chunks] == [3]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_text_rows_are_selected(tmp_path: Path, form: str) -> None:
    bars = as_text(minutes(6)).with_columns(contract=pl.Series(["A", "B"] * 3))
    path = tmp_path / f"bars.{form}"
    bars.write_csv(path) if form == "csv" else bars.write_ndjson(path)
    chunks = read(path, select={"contract": "B"})
    assert rows(chunks)["time"].to_list() == bars["time"].gather([1, 3, 5]).to_list()
    assert sum(c.not_selected for c in chunks) == 3


def test_a_glob_is_read_in_sorted_order(tmp_path: Path) -> None:
    bars = as_text(minutes(4))
    bars[2:].write_csv(tmp_path / "b.csv")
    bars[:2].write_csv(tmp_path / "a.csv")
    chunks = read(tmp_path / "*.csv")
    assert [c.source for c in chunks] == ["a.csv", "b.csv"]
    assert rows(chunks).drop("line").equals(bars)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "source", "message"),
    [
        ("empty.csv", "", {}, "empty.csv is empty; required: a header line"),
        ("b.csv", "a,b,a\n", {}, "names a column twice"),
        ("b.csv", "time,open,high,low\n", {}, r"lacks \['close'\]; it has \['time', 'open', 'high', 'low'\]"),
        ("b.csv", HEADER + "\n", {"columns": {"close": "last"}}, r"lacks \['last'\]"),
        ("b.csv", HEADER + "\n", {"select": {"contract": "A"}}, r"lacks \['contract'\]"),
        ("b.xlsx", "x", {}, "b.xlsx has no known ending; required: one of"),
        ("b.parquet", "PAR1 no", {}, "b.parquet cannot be read as parquet"),
        ("b.csv.gz", b"\x1f\x8b broken", {}, "b.csv.gz cannot be read as csv"),
    ],
)
def test_unusable_files_are_named(
    tmp_path: Path, name: str, content: str | bytes, source: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content), **source)


def test_objects_without_a_required_name_are_an_error(tmp_path: Path) -> None:
    candle = {"time": "2024-01-30T00:00:00Z", "mid": {"o": "1", "h": "1", "l": "1", "c": "1"}}
    path = write(tmp_path / "b.ndjson", json.dumps(candle))
    with pytest.raises(
        DataError, match=r"none of the first 1 objects of .* has \['open', 'high', 'low', 'close'\]"
    ):
        read(path)
    assert len(rows(read(path, layout="oanda"))) == 1


def test_paths_that_hold_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no.csv does not exist; required: a file of bars"):
        read(tmp_path / "no.csv")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"source.paths: .*no.csv cannot be read"):
        files.fingerprint([tmp_path / "no.csv"])


def test_types_that_hold_no_bar_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    minutes(2).with_columns(close=pl.lit(value=True)).write_parquet(path)
    with pytest.raises(DataError, match="'close' of type bool for close; required: a number or text"):
        read(path)
    minutes(2).with_columns(time=pl.lit(1.5)).write_parquet(path)
    with pytest.raises(DataError, match="'time' of type double for time; required: a timestamp"):
        read(path)


def test_layout_and_mapping_must_make_sense(tmp_path: Path) -> None:
    path = write(tmp_path / "b.csv", HEADER + "\n")
    with pytest.raises(SettingsError, match="source.layout: got 'oanda' for .* which is csv"):
        read(path, layout="oanda")
    with pytest.raises(SettingsError, match=r"source.columns: got \['last'\]"):
        read(path, columns={"last": "close"})
