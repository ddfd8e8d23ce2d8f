"""Bars in Parquet files, one record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from marketray.errors import DataError
from marketray.ingest.sources.files import CHUNK_ROWS, RawChunk, locate_columns

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.settings import FileSource

__all__ = ["read_parquet"]

_NO_BROKEN_ROWS = pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String, "text": pl.String})


def read_parquet(path: Path, source: FileSource) -> Iterator[RawChunk]:
    """Chunks of a Parquet file; `line` is the row number, from 1.

    Raises
    ------
    DataError
        A column is missing or of a type that cannot hold a time or a number.
    """
    with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
        schema = file.schema_arrow
        columns = locate_columns(source, schema.names, path)
        _check_types(columns, schema, path)
        line = 0
        wanted = sorted({*columns.values(), *source.select})
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=wanted, use_threads=False):
            frame = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(frame, pl.DataFrame)
            frame = frame.with_columns(
                pl.Series("__line", range(line + 1, line + 1 + len(frame)), dtype=pl.Int64)
            )
            line += len(frame)
            kept = frame.filter(_selection(source.select)) if source.select else frame
            rows = kept.select(
                pl.col("__line").alias("line"), *(pl.col(v).alias(k) for k, v in columns.items())
            )
            yield RawChunk(path.name, rows, _NO_BROKEN_ROWS, len(frame) - len(kept))


def _selection(select: dict[str, str]) -> pl.Expr:
    tests = [pl.col(name).cast(pl.String).eq_missing(pl.lit(value)) for name, value in select.items()]
    return reduce(and_, tests)


def _check_types(columns: dict[str, str], schema: pa.Schema, path: Path) -> None:
    for field, name in columns.items():
        kind = schema.field(name).type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if field == "time":
            fits = (
                is_text or pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)
            )
            required = "a timestamp, a date, text, or an integer count since 1970"
        else:
            number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            fits, required = is_text or number, "a number or text"
        if not fits:
            msg = f"source.columns: {path} has {name!r} of type {kind} for {field}; required: {required}"
            raise DataError(msg, hint="map another column, or convert the file")
