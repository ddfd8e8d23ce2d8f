"""Bars in CSV, NDJSON or Parquet files, read in chunks with the line every row came from.

Nothing is judged here beyond what keeps a row from being read at all: values stay what the file says
(text from CSV and NDJSON, typed columns from Parquet) and `marketray.ingest.parsing` gives them meaning.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl
import pyarrow as pa

from marketray.bars import COLUMNS, REQUIRED
from marketray.errors import DataError, SettingsError

if TYPE_CHECKING:
    from marketray.settings import FileSource

__all__ = [
    "CHUNK_ROWS",
    "ENDINGS",
    "RawChunk",
    "detect_format",
    "expand_paths",
    "fingerprint",
    "locate_columns",
    "read_bars",
]

CHUNK_ROWS = 65_536
"""Most rows of a chunk; what bounds the memory of an ingest."""

_TIME_NAMES = ("time", "timestamp", "datetime", "date")
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Format of a file of bars by the ending of its name."""

_COMPRESSED = {".gz", ".bz2", ".zst"}

Format = Literal["csv", "ndjson", "parquet"]
Resolve = Callable[[str], Path]


@dataclass(frozen=True)
class RawChunk:
    """At most `CHUNK_ROWS` rows of one file, in file order.

    Attributes
    ----------
    source:
        Name of the file, or of what stands for it.
    rows:
        `line` (Int64, from 1; the row number in Parquet) and the columns of bars that the file has, as
        text or typed; `complete` (Boolean) where the layout says whether a candle is final.
    broken:
        Rows that could not be split into fields: `line`, `reason` and `text`, the whole line.
    not_selected:
        How many rows the `select` setting left out.
    """

    source: str
    rows: pl.DataFrame
    broken: pl.DataFrame
    not_selected: int = 0


def read_bars(source: FileSource, instrument: str, resolve: Resolve) -> Iterator[RawChunk]:
    """Rows of all files of `source`, file by file, in chunks.

    Parameters
    ----------
    source:
        Paths, format, layout, column names and selection.
    instrument:
        Our name of the instrument; candles of the OANDA layout that name another one are refused.
    resolve:
        Makes a path of the settings absolute.

    Raises
    ------
    DataError
        A file is missing, empty, of an unknown format, unreadable, or lacks a column.
    SettingsError
        `source.columns` maps a column that bars do not have, or the layout does not fit the format.
    """
    from marketray.ingest.sources.columnar import read_parquet
    from marketray.ingest.sources.text import read_csv, read_ndjson

    unknown = sorted(set(source.columns) - set(COLUMNS))
    if unknown:
        msg = f"source.columns: got {unknown}; required: ours -> the file's name, ours among {list(COLUMNS)}"
        raise SettingsError(msg, hint="for example columns: {time: timestamp, close: last}")
    for path in expand_paths(source.paths, resolve):
        kind = detect_format(path, source.format)
        if source.layout == "oanda" and kind != "ndjson":
            msg = f"source.layout: got 'oanda' for {path}, which is {kind}; required: NDJSON"
            raise SettingsError(msg, hint="use layout: columns, or name the format with source.format")
        try:
            if kind == "parquet":
                yield from read_parquet(path, source)
            elif kind == "csv":
                yield from read_csv(path, source)
            else:
                yield from read_ndjson(path, source, instrument)
        except (pa.ArrowException, OSError, EOFError) as e:
            msg = f"source.paths: {path} cannot be read as {kind}: {e}"
            raise DataError(msg, hint="check that the file is whole and that source.format is right") from e


def expand_paths(
    paths: Sequence[str], resolve: Resolve, setting: str = "source.paths", holding: str = "bars"
) -> list[Path]:
    """Absolute paths of files in reading order; matches of a glob are sorted.

    `setting` and `holding` say in an error which key is wrong and what its files hold.

    Raises
    ------
    DataError
        A path does not exist or is a folder, or a glob matches nothing.
    """
    found: list[Path] = []
    for text in paths:
        path = resolve(text)
        if path.is_file():
            found.append(path)
            continue
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute
        files = [m for m in matches if m.is_file()]
        if not files:
            what = "is a folder" if path.is_dir() else "does not exist"
            msg = f"{setting}: {path} {what}; required: a file of {holding}, or a glob that matches some"
            raise DataError(msg, hint="relative paths start at MARKETRAY_HOME; write an absolute path")
        found += files
    return found


def fingerprint(paths: Sequence[Path], setting: str = "source.paths") -> list[dict[str, str | int]]:
    """Name, size in bytes and SHA-256 of every file: what decides whether a source has changed."""
    prints: list[dict[str, str | int]] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as e:
            msg = f"{setting}: {path} cannot be read ({e.strerror})"
            raise DataError(msg, hint="check the file's permissions") from e
        prints.append({"name": path.name, "bytes": path.stat().st_size, "sha256": found})
    return prints


def locate_columns(source: FileSource, found: Sequence[str], path: Path) -> dict[str, str]:
    """Which of a file's columns holds each of `COLUMNS`: ours -> the file's.

    A column that `source.columns` names must be there. Others are found under our own name, whatever
    its case; the time also as timestamp, datetime or date. Those of `marketray.bars.OPTIONAL` may be missing.

    Raises
    ------
    DataError
        A required or declared column is missing, or the selected column is.
    """
    lower = {name.strip().lower(): name for name in reversed(found)}
    columns = {}
    for field in COLUMNS:
        if field in source.columns:
            columns[field] = source.columns[field]
            continue
        names = _TIME_NAMES if field == "time" else (field,)
        match = next((lower[name] for name in names if name in lower), None)
        if match is not None:
            columns[field] = match
    missing = [name for name in (*columns.values(), *source.select) if name not in found]
    missing += [field for field in REQUIRED if field not in columns]
    if missing:
        msg = f"source.columns: {path} lacks {sorted(set(missing))}; it has {list(found)[:40]}"
        raise DataError(msg, hint="map our names to the file's, e.g. columns: {time: stamp, close: last}")
    return columns


def detect_format(
    path: Path, declared: str, endings: Mapping[str, str] = ENDINGS, setting: str = "source.format"
) -> str:
    """The declared format, or with ``auto`` the one that a name's ending stands for.

    Raises
    ------
    DataError
        The ending is unknown.
    """
    if declared != "auto":
        return declared
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in endings:
        msg = f"{setting}: {path.name} has no known ending; required: one of {sorted(endings)}"
        raise DataError(msg, hint=f"name the format with {setting}, e.g. csv, ndjson or parquet")
    return endings[suffixes[-1]]
