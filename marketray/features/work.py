"""What a task of the features stage does: read, compute and store adjacent ranges of one instrument."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from marketray.errors import DataError, MarketrayError
from marketray.features.items import TimeRange, WorkItem
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sentiment.store import read_news
from marketray.settings import FeatureSettings, MarketSettings

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog

__all__ = ["BARS", "FeatureTask", "compute_features", "compute_items", "load_catalog", "where"]

BARS = "bronze/bars"


@dataclass(frozen=True)
class FeatureTask:
    """What every task of a run needs to know; small, and equal on every node.

    Attributes
    ----------
    available, catalog_hash:
        Columns that hold data and identity of the catalog, by instrument.
    """

    lake_uri: str
    dataset: str
    features: FeatureSettings
    market: MarketSettings
    interval_minutes: int
    available: dict[str, tuple[str, ...]]
    catalog_hash: dict[str, str]


@lru_cache(maxsize=8)
def load_catalog(features: FeatureSettings, available: tuple[str, ...], interval_minutes: int) -> Catalog:
    """`build_catalog`, once a process."""
    from marketray.features.catalog import build_catalog

    return build_catalog(features, available, interval_minutes)


def compute_features(batch: pa.Table, task: FeatureTask) -> pa.Table:
    """Compute and store the items of a batch; return a row with its place, row counts and error.

    Errors that marketray raises on purpose come back in the row, since Ray Data keeps only the text of
    an exception; the driver raises them again as what they were.
    """
    # Ray gives a task one CPU; Polars would start a thread for each CPU of the node.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    return pa.Table.from_pylist([_outcome(_parse_items(text), task) for text in batch["items"].to_pylist()])


def _outcome(items: Sequence[WorkItem], task: FeatureTask) -> dict[str, Any]:
    row = {"where": where(items), "rows": [0], "error": "", "message": "", "hint": ""}
    try:
        row["rows"] = compute_items(items, task)
    except MarketrayError as e:
        row |= {"error": type(e).__name__, "message": e.message, "hint": e.hint or ""}
    return row


def where(items: Sequence[WorkItem]) -> str:
    """The batch for people: its partition, or the first and the last."""
    first, last = "/".join(items[0].partition.values()), items[-1].span.label
    return first if len(items) == 1 else f"{first} to {last}"


def _parse_items(text: str) -> list[WorkItem]:
    found = []
    for raw in json.loads(text):
        span = raw.pop("span")
        start, end = (datetime.fromisoformat(span[name]) for name in ("start", "end"))
        months, news = tuple(raw.pop("months")), tuple(raw.pop("news"))
        place = TimeRange(span["level"], span["label"], start, end)
        found.append(WorkItem(span=place, months=months, news=news, **raw))
    return found


def compute_items(items: Sequence[WorkItem], task: FeatureTask) -> list[int]:
    """Read, compute and store adjacent items of an instrument; return their numbers of rows."""
    from marketray.features.kernel import compute_range
    from marketray.sessions import month_sessions

    first, last = items[0], items[-1]
    expected = task.catalog_hash[first.instrument]
    catalog = load_catalog(task.features, task.available[first.instrument], task.interval_minutes)
    if catalog.hash != expected:
        msg = f"features: this node's catalog is {catalog.hash}, the driver's is {expected}"
        raise DataError(msg, hint="install the same version of marketray on every node")
    lake = Lake(task.lake_uri)
    bars = _read_bars(lake, items, catalog.columns)
    sessions = month_sessions(task.market, bars["time"][0].as_py().date(), bars["time"][-1].as_py().date())
    news = None
    if catalog.news_columns:
        news = read_news(lake, first.instrument, sorted({month for item in items for month in item.news}))
    start, end = first.span.start, last.span.end
    table = compute_range(catalog, bars, sessions, start, end, news=news, from_start=first.from_start)
    return [_store(lake, task.dataset, item, table) for item in items]


def _store(lake: Lake, dataset: str, item: WorkItem, table: pa.Table) -> int:
    """Write the item's rows of `table`; return their number."""
    edges = [round(t.timestamp() * 1e6) for t in (item.span.start, item.span.end)]
    start, stop = np.searchsorted(table["time"].cast(pa.int64()).to_numpy(), edges)
    rows = table.slice(start, stop - start)
    manifest = Manifest(item.key, table_hash(rows), rows_in=rows.num_rows, rows_out=rows.num_rows)
    lake.write(dataset, item.partition, rows, manifest)
    return int(rows.num_rows)


def _read_bars(lake: Lake, items: Sequence[WorkItem], columns: Sequence[str]) -> pa.Table:
    """The items' months as one table; a column that a month lacks is null there."""
    tables = []
    for month in sorted({month for item in items for month in item.months}):
        table = lake.read(BARS, {"instrument": items[0].instrument, "month": month})
        for name in columns:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
        tables.append(table.select(columns).replace_schema_metadata(None))
    return pa.concat_tables(tables)
