"""Bars in CSV and NDJSON files, a block of whole lines at a time; every value stays the file's text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from pyarrow import csv

from marketray.bars import COLUMNS, PRICES, QUOTES, REQUIRED
from marketray.errors import DataError
from marketray.ingest.sources.files import CHUNK_ROWS, RawChunk, locate_columns

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.settings import FileSource

__all__ = ["read_csv", "read_ndjson"]

_BLOCK_BYTES = 1 << 22
_MAX_LINE_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_BROKEN_SCHEMA = {"line": pl.Int64, "reason": pl.String, "text": pl.String}

Lines = list[tuple[int, bytes]]
Broken = list[tuple[int, str, str]]


def read_csv(path: Path, source: FileSource) -> Iterator[RawChunk]:
    """Chunks of a CSV file with a header line; comma, semicolon, tab or bar separate the fields.

    A line with another number of fields than the header, or with an unclosed quote, is a broken row.
    Blank lines are not rows. Compressed files (.gz, .bz2, .zst) are read as they are.

    Raises
    ------
    DataError
        The file is empty, names a column twice, or lacks one.
    """
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        msg = f"source.paths: {path} is empty; required: a header line and rows"
        raise DataError(msg)
    first = _text(header[0][1])
    delimiter = max(_DELIMITERS, key=first.count)
    names = [name.strip().strip('"').strip() for name in first.split(delimiter)]
    if len(set(names)) < len(names):
        msg = f"source.paths: {path} names a column twice in its header: {names[:40]}"
        raise DataError(msg, hint="the first line must name the columns, each once")
    columns = locate_columns(source, names, path)
    for block in chain([header[1:]], lines):
        yield from _csv_chunk(path, source, block, names, columns, delimiter)


def _csv_chunk(
    path: Path, source: FileSource, block: Lines, names: list[str], columns: dict[str, str], delimiter: str
) -> Iterator[RawChunk]:
    """One chunk of `block`, or none where it holds only blank lines."""
    broken: Broken = []
    whole: Lines = []
    for number, line in block:
        if line.count(b'"') % 2:
            broken.append((number, "unreadable_row", _text(line)))
        elif line.strip():
            whole.append((number, line))
    if not whole and not broken:
        return
    refused: list[int] = []

    def refuse(row: Any) -> str:
        refused.append(row.number - 1)
        broken.append((whole[row.number - 1][0], "unreadable_row", row.text))
        return "skip"

    data = b"\n".join(line for _, line in whole)
    if len(names) > 1:
        table = _parse_csv(data, names, delimiter, refuse)
    else:
        table = pa.table({names[0]: [_text(line) for _, line in whole]})
    out = set(refused)
    numbers = [number for i, (number, _) in enumerate(whole) if i not in out]
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame = frame.with_columns(pl.Series("__line", numbers, dtype=pl.Int64))
    kept = frame.filter(*(pl.col(k).str.strip_chars() == v for k, v in source.select.items()))
    rows = kept.select(pl.col("__line").alias("line"), *(pl.col(v).alias(k) for k, v in columns.items()))
    yield RawChunk(path.name, rows, _broken_frame(broken), len(frame) - len(kept))


def _parse_csv(data: bytes, names: list[str], delimiter: str, refuse: Any) -> pa.Table:
    try:
        data.decode()
    except UnicodeDecodeError:
        data = _text(data).encode()
    if not data:
        return pa.table({name: pa.array([], pa.string()) for name in names})
    return csv.read_csv(
        io.BytesIO(data),
        read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=2 * len(data) + 64),
        parse_options=csv.ParseOptions(
            delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=refuse
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )


def read_ndjson(path: Path, source: FileSource, instrument: str) -> Iterator[RawChunk]:
    """Chunks of a file with one JSON object a line.

    With ``layout: oanda`` an object is a candle ``{time, mid: {o, h, l, c}, volume, complete}`` (`bid` and
    `ask` objects give the quotes at the bar's end), a flat bar with the same names as our columns, or a
    response that holds ``candles``. A line that is no JSON object is a broken row. Blank lines are not rows.

    Raises
    ------
    DataError
        No object of the file's beginning has a required value.
    """
    seen = False
    for block in _lines(path):
        broken: Broken = []
        records: list[dict[str, Any]] = []
        not_selected = 0
        for number, line in block:
            if not line.strip():
                continue
            found = _objects(line, source.layout)
            if found is None:
                broken.append((number, "unreadable_row", _text(line)))
                continue
            for record in found:
                if any(_as_text(record.get(k)) != v for k, v in source.select.items()):
                    not_selected += 1
                    continue
                if source.layout == "oanda" and record.get("instrument", instrument) != instrument:
                    broken.append((number, "other_instrument", _text(line)))
                    continue
                records.append({"line": number, **_fields(record, source)})
        if records or broken or not_selected:
            frame = _record_frame(records)
            if len(frame) and not seen:
                _refuse_missing(frame, path)
                seen = True
            yield RawChunk(path.name, frame, _broken_frame(broken), not_selected)


def _objects(line: bytes, layout: str) -> list[dict[str, Any]] | None:
    """The JSON objects of a line, numbers as the text they are written in; None where it holds none."""
    try:
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    candles = value.get("candles")
    if layout != "oanda" or not isinstance(candles, list):
        return [value]
    shared = {k: v for k, v in value.items() if k == "instrument"}
    return [{**shared, **c} for c in candles] if all(isinstance(c, dict) for c in candles) else None


def _fields(record: dict[str, Any], source: FileSource) -> dict[str, Any]:
    if source.layout == "columns":
        named = {field: source.columns.get(field, field) for field in COLUMNS}
        if "time" not in source.columns and "time" not in record and "timestamp" in record:
            named["time"] = "timestamp"
        return {field: _as_text(record[name]) for field, name in named.items() if name in record}
    found = {field: _as_text(record[field]) for field in COLUMNS if field in record}
    mid = record.get("mid")
    if isinstance(mid, dict):
        found |= {field: _as_text(mid[field[0]]) for field in PRICES if field[0] in mid}
    for side in QUOTES:
        if isinstance(record.get(side), dict):
            found[side] = _as_text(record[side].get("c"))
    return {**found, "complete": record.get("complete") is not False}


def _refuse_missing(frame: pl.DataFrame, path: Path) -> None:
    missing = [field for field in REQUIRED if frame[field].null_count() == len(frame)]
    if missing:
        msg = f"source.columns: none of the first {len(frame)} objects of {path} has {missing}"
        raise DataError(msg, hint="map our names to the file's, or set source.layout: oanda for candles")


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _record_frame(records: list[dict[str, Any]]) -> pl.DataFrame:
    present = {key for record in records for key in record}
    schema: dict[str, Any] = {"line": pl.Int64}
    schema |= {f: pl.String for f in COLUMNS if f in present or f in REQUIRED}
    if "complete" in present:
        schema["complete"] = pl.Boolean
    return pl.DataFrame(records, schema=schema, orient="row")


def _broken_frame(broken: Broken) -> pl.DataFrame:
    return pl.DataFrame(broken, schema=_BROKEN_SCHEMA, orient="row")


def _lines(path: Path) -> Iterator[Lines]:
    """Blocks of at most `CHUNK_ROWS` numbered lines without their line ends; the first starts the file."""
    with pa.input_stream(str(path), compression="detect") as stream:
        rest, number = b"", 0
        while True:
            data = stream.read(_BLOCK_BYTES)
            text = rest + data if number else (rest + data).removeprefix(b"\xef\xbb\xbf")
            cut = text.rfind(b"\n") + 1 if data else len(text)
            rest = text[cut:]
            if len(rest) > _MAX_LINE_BYTES:
                msg = f"source.paths: {path} has a line of over {_MAX_LINE_BYTES} bytes after line {number}"
                raise DataError(msg, hint="check that it is a text file with one bar a line")
            lines = text[:cut].split(b"\n")
            if lines[-1] == b"":
                lines.pop()
            for start in range(0, len(lines), CHUNK_ROWS):
                part = lines[start : start + CHUNK_ROWS]
                yield [(number + i, line.rstrip(b"\r")) for i, line in enumerate(part, 1 + start)]
            number += len(lines)
            if not data:
                return


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
