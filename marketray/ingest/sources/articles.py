"""News articles in JSON, NDJSON, CSV or Parquet files, read in chunks with the file and line of each.

Nothing is judged here beyond what keeps an article from being read at all: values stay what the file says
(text, except the times of Parquet) and `marketray.ingest.article_rows` gives them meaning.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from marketray.errors import DataError, SettingsError
from marketray.ingest.articles import Precision
from marketray.ingest.sources.files import ENDINGS, detect_format

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.settings import NewsSettings

__all__ = ["CHUNK_ARTICLES", "FIELDS", "RawArticles", "read_articles"]

CHUNK_ARTICLES = 8_192
"""Most articles of a chunk; with their length, what bounds the memory of reading."""

TIMES = ("published_at", "collected_at")
FIELDS = ("article_id", *TIMES, "precision", "source", "url", "title", "body", "language")
"""What an article can have, under our names."""

_OTHER_NAMES = {"title": ("title", "headline")}
_ENDINGS = {**ENDINGS, ".json": "json"}
_MAX_JSON_BYTES = 1 << 24
_DELIMITERS = (",", ";", "\t", "|")
_TEXT_SCHEMA = {"file": pl.String, "line": pl.Int64, **dict.fromkeys(FIELDS, pl.String)}
_BROKEN_SCHEMA = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}


@dataclass(frozen=True)
class RawArticles:
    """At most `CHUNK_ARTICLES` articles.

    Attributes
    ----------
    rows:
        `file`, `line` (Int64, from 1: where the article starts; the row number in Parquet) and `FIELDS`,
        all of them text but for the times of Parquet files; null where the file has none.
    broken:
        What could not be split into fields: `file`, `line`, `reason` and `text`.
    """

    rows: pl.DataFrame
    broken: pl.DataFrame


class _Record(NamedTuple):
    file: str
    line: int
    fields: dict[str, str | None] | None  # None: broken
    text: str


def read_articles(files: Sequence[tuple[str, Path]], news: NewsSettings) -> Iterator[RawArticles]:
    """Chunks of all articles of `files`, pairs of the name to report and the path to read.

    Raises
    ------
    DataError
        A file is empty, of an unknown format, unreadable, or lacks a column.
    SettingsError
        `news.columns` maps something that articles do not have.
    """
    known = set(FIELDS) - {"precision"}
    unknown = sorted(set(news.columns) - known)
    if unknown:
        msg = f"news.columns: got {unknown}; required: ours -> the file's name, ours among {sorted(known)}"
        raise SettingsError(msg, hint="for example columns: {published_at: time, title: headline}")
    kinds = [detect_format(path, news.format, _ENDINGS, "news.format") for _, path in files]
    lines = (r for (name, path), kind in zip(files, kinds, strict=True) if kind != "parquet"
             for r in _records(name, path, kind, news))  # fmt: skip
    while batch := list(islice(lines, CHUNK_ARTICLES)):
        yield _chunk(batch)
    for (name, path), kind in zip(files, kinds, strict=True):
        if kind == "parquet":
            yield from _parquet(name, path, news)


def _chunk(batch: list[_Record]) -> RawArticles:
    rows = [{"file": r.file, "line": r.line, **r.fields} for r in batch if r.fields is not None]
    broken = [(r.file, r.line, "unreadable_row", r.text) for r in batch if r.fields is None]
    return RawArticles(
        pl.DataFrame(rows, schema=_TEXT_SCHEMA, orient="row"),
        pl.DataFrame(broken, schema=_BROKEN_SCHEMA, orient="row"),
    )


def _records(name: str, path: Path, kind: str, news: NewsSettings) -> Iterator[_Record]:
    read = {"csv": _csv, "ndjson": _ndjson, "json": _json}[kind]
    try:
        yield from read(name, path, news)
    except (pa.ArrowException, OSError, EOFError, csv.Error) as e:
        raise _unreadable(path, kind, e) from e


def _csv(name: str, path: Path, news: NewsSettings) -> Iterator[_Record]:
    """Rows below a header; a field in quotes can hold line ends. Other numbers of fields are broken rows."""
    with _open(path, newline="") as stream:
        first = stream.readline()
        if not first.strip():
            msg = f"news.paths: {path} is empty; required: a header line and articles"
            raise DataError(msg)
        delimiter = max(_DELIMITERS, key=first.count)
        header = [field.strip() for field in next(csv.reader([first], delimiter=delimiter))]
        columns = _locate(news, header, path)
        at = {field: header.index(column) for field, column in columns.items()}
        reader = csv.reader(stream, delimiter=delimiter)
        line = 2
        for row in reader:
            if len(row) == len(header):
                yield _Record(name, line, {field: row[i] for field, i in at.items()}, "")
            elif row:
                yield _Record(name, line, None, delimiter.join(row))
            line = reader.line_num + 2


def _ndjson(name: str, path: Path, news: NewsSettings) -> Iterator[_Record]:
    """One JSON object a line; a line that is none is a broken row. Blank lines are not rows."""
    with _open(path, newline="\n") as stream:
        for line, text in enumerate(stream, 1):
            if text.strip():
                yield _Record(name, line, _object(text, news), text.rstrip("\r\n"))


def _json(name: str, path: Path, news: NewsSettings) -> Iterator[_Record]:
    """One JSON object in the whole file."""
    with _open(path, newline="\n") as stream:
        text = stream.read(_MAX_JSON_BYTES + 1)
    if len(text) > _MAX_JSON_BYTES:
        msg = f"news.format: {path} has over {_MAX_JSON_BYTES} characters; required: one article a file"
        raise DataError(msg, hint="for one JSON object a line name it: news.format: ndjson")
    yield _Record(name, 1, _object(text, news), text)


def _object(text: str, news: NewsSettings) -> dict[str, str | None] | None:
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return {field: _as_text(value[column]) for field, column in _columns(news, list(value)).items()}


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text


def _parquet(name: str, path: Path, news: NewsSettings) -> Iterator[RawArticles]:
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            schema = file.schema_arrow
            columns = _locate(news, schema.names, path)
            _check_times(columns, schema, path)
            line, wanted = 1, sorted(set(columns.values()))
            for batch in file.iter_batches(batch_size=CHUNK_ARTICLES, columns=wanted, use_threads=False):
                frame = pl.from_arrow(pa.Table.from_batches([batch]))
                assert isinstance(frame, pl.DataFrame)
                yield RawArticles(_typed(frame, columns, name, line), pl.DataFrame(schema=_BROKEN_SCHEMA))
                line += len(frame)
    except (pa.ArrowException, OSError) as e:
        raise _unreadable(path, "parquet", e) from e


def _typed(frame: pl.DataFrame, columns: dict[str, str], name: str, line: int) -> pl.DataFrame:
    numbers = pl.Series("line", range(line, line + len(frame)), dtype=pl.Int64)
    values = [
        pl.lit(None, pl.String).alias(field)
        if field not in columns
        else pl.col(columns[field]).alias(field)
        if field in TIMES
        else pl.col(columns[field]).cast(pl.String).alias(field)
        for field in FIELDS
    ]
    return frame.select(pl.lit(name).alias("file"), numbers, *values)


def _check_times(columns: dict[str, str], schema: pa.Schema, path: Path) -> None:
    types = pa.types
    for field in TIMES:
        kind = schema.field(columns[field]).type if field in columns else pa.string()
        text = types.is_string(kind) or types.is_large_string(kind)
        if not (text or types.is_timestamp(kind) or types.is_date(kind) or types.is_integer(kind)):
            msg = (
                f"news.columns: {path} has {columns[field]!r} of type {kind} for {field}; required: "
                "a timestamp, a date, text, or an integer count since 1970"
            )
            raise DataError(msg, hint="map another column, or convert the file")


def _columns(news: NewsSettings, found: Sequence[str]) -> dict[str, str]:
    """Which of the names `found` holds each field, ours -> the file's, as far as they are there."""
    lower = {name.strip().lower(): name for name in reversed(found)}
    columns: dict[str, str] = {}
    for field in FIELDS:
        names = [news.columns[field]] if field in news.columns else []
        if field == "precision":
            names = [] if news.precision in get_args(Precision) else [news.precision]
        elif not names:
            names = [lower[name] for name in _OTHER_NAMES.get(field, (field,)) if name in lower]
        there = [name for name in names if name in found]
        if there:
            columns[field] = there[0]
    return columns


def _locate(news: NewsSettings, found: Sequence[str], path: Path) -> dict[str, str]:
    """`_columns` of a table, which must have those that the settings name, the time and some text."""
    columns = _columns(news, found)
    declared = set(news.columns.values())
    if news.precision not in get_args(Precision):
        declared.add(news.precision)
    missing = sorted(declared - set(found))
    missing += [] if "published_at" in columns else ["published_at"]
    missing += [] if {"title", "body"} & set(columns) else ["title"]
    if missing:
        msg = f"news.columns: {path} lacks {missing}; it has {list(found)[:40]}"
        raise DataError(msg, hint="map our names to the file's, e.g. columns: {published_at: time}")
    return columns


def _open(path: Path, newline: str) -> io.TextIOWrapper:
    stream: Any = pa.input_stream(str(path), compression="detect")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="backslashreplace", newline=newline)


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    msg = f"news.paths: {path} cannot be read as {kind}: {error}"
    return DataError(msg, hint="check that the file is whole and that news.format is right")
