"""Arrow schemas of the bronze tables and of their quarantine.

All times are ``timestamp[us, UTC]``. A bar's `time` is its open; prices are in the instrument's quote
currency; `bid` and `ask` are the quotes at the bar's end, `bid_size` and `ask_size` the sizes there.
"""

from __future__ import annotations

import pyarrow as pa

from marketray.bars import QUOTES, SIZES, VALUES

__all__ = [
    "ARTICLE_SCHEMA",
    "BAR_SCHEMA",
    "ORACLE_SCHEMA",
    "QUARANTINE_ARTICLE_SCHEMA",
    "QUARANTINE_BAR_SCHEMA",
    "TIME_TYPE",
    "bar_schema",
]

TIME_TYPE = pa.timestamp("us", "UTC")
"""Type of every time column."""

_FLAGS = ("outlier",)

BAR_SCHEMA = pa.schema(
    [
        pa.field("time", TIME_TYPE),
        *(pa.field(name, pa.float64()) for name in VALUES),
        pa.field("outlier", pa.bool_()),
    ]
)
"""Every column that bars can have, in order. A source without quotes or sizes has not their columns."""

ARTICLE_SCHEMA = pa.schema(
    [
        pa.field("article_id", pa.string()),
        pa.field("published_at", TIME_TYPE),
        pa.field("collected_at", TIME_TYPE),
        pa.field("available_at", TIME_TYPE),
        pa.field("precision", pa.string()),
        pa.field("source", pa.string()),
        pa.field("url", pa.string()),
        pa.field("title", pa.string()),
        pa.field("body", pa.string()),
        pa.field("language", pa.string()),
    ]
)
"""Articles, sorted by `available_at`; `precision` is that of `published_at` (see `ingest.articles`)."""

ORACLE_SCHEMA = pa.schema(
    [
        pa.field("decision_at", TIME_TYPE),
        pa.field("market", pa.float64()),
        pa.field("news", pa.float64()),
        pa.field("all", pa.float64()),
    ]
)
"""The simulator's best forecasts of the return over (decision_at, decision_at + 30 min], as fractions."""


def bar_schema(*, quotes: bool = True, sizes: bool = True, flags: bool = True) -> pa.Schema:
    """`BAR_SCHEMA` with or without the quotes, the sizes there, and the flags of the quality checks."""
    left_out = (() if quotes else QUOTES) + (() if sizes else SIZES) + (() if flags else _FLAGS)
    return pa.schema([field for field in BAR_SCHEMA if field.name not in left_out])


def _quarantine(schema: pa.Schema, left_out: tuple[str, ...] = ()) -> pa.Schema:
    texts = [pa.field(name, pa.string()) for name in schema.names if name not in left_out]
    origin = [
        pa.field("reason", pa.string()),
        pa.field("source", pa.string()) if "source" not in schema.names else pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
    ]
    return pa.schema(texts + origin)


QUARANTINE_BAR_SCHEMA = _quarantine(BAR_SCHEMA, _FLAGS)
"""Refused bars: the original values as text, the `reason`, and the `source` file and `line` they had."""

QUARANTINE_ARTICLE_SCHEMA = _quarantine(ARTICLE_SCHEMA)
"""Refused articles: as for bars, but the origin is named `file`, since articles have a `source`."""
