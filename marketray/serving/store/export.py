"""Recorded predictions as files, of any number in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marketray.serving.store.predictions import EVERYTHING, Predictions, Wanted

__all__ = ["EXPORT_SCHEMA", "export_jsonl", "export_parquet", "json_lines"]

_TIME = pa.timestamp("us", tz="UTC")
EXPORT_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("request_id", pa.string()),
        ("at", _TIME),
        ("slot", pa.string()),
        ("shadow", pa.bool_()),
        ("bars", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.int32()),
        ("catalog_hash", pa.string()),
        ("instrument", pa.string()),
        ("decision_at", _TIME),
        ("target_at", _TIME),
        ("last_close", pa.float64()),
        ("predicted_return", pa.float64()),
        ("probability_up", pa.float64()),
        ("direction", pa.string()),
        ("features_used", pa.int32()),
        ("latency_ms", pa.float64()),
        ("status", pa.int16()),
        ("problem", pa.string()),
        ("client_bucket", pa.int16()),
        ("actual_return", pa.float64()),
        ("error", pa.float64()),
        ("actual_at", _TIME),
        ("actual_reason", pa.string()),
    ]
)
"""Columns of an export, in the order of the table."""


def json_lines(predictions: Predictions, wanted: Wanted = EVERYTHING) -> Iterator[str]:
    """One JSON object a line, each with its line feed, the oldest by `at` first; times are ISO 8601, UTC."""
    for rows in predictions.stream(wanted):
        for row in rows:
            yield json.dumps(row, default=datetime.isoformat, allow_nan=False) + "\n"


def export_jsonl(predictions: Predictions, path: Path, wanted: Wanted = EVERYTHING) -> int:
    """Write `json_lines` to a file, which appears whole or not at all; gives the number of rows."""
    rows = 0
    with _aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        for line in json_lines(predictions, wanted):
            file.write(line)
            rows += 1
    return rows


def export_parquet(predictions: Predictions, path: Path, wanted: Wanted = EVERYTHING) -> int:
    """Write Parquet (zstd) with the columns `EXPORT_SCHEMA`, the oldest by `at` first; see `export_jsonl`."""
    rows = 0
    with _aside(path) as aside, pq.ParquetWriter(aside, EXPORT_SCHEMA, compression="zstd") as file:
        for batch in predictions.stream(wanted, batch=20_000):
            file.write_batch(_batch(batch))
            rows += len(batch)
    return rows


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=EXPORT_SCHEMA)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end of the block, or goes where the block raises."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
