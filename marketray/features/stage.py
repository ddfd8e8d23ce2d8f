"""Bars to features on Ray Data: one task a month, each reads its own bars and its halo.

Tasks write their partition themselves and return one small row, so no feature table travels through
the object store. A finished partition whose inputs, settings and code are unchanged is not done again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from marketray import errors
from marketray.errors import ClusterError, DataError, LakeError, MarketrayError
from marketray.features.items import (
    BarMonth,
    TimeRange,
    WorkItem,
    hours,
    month_ranges,
    plan_items,
    stage_key,
)
from marketray.hashing import code_hash, digest, table_hash
from marketray.lake import Lake, Manifest
from marketray.settings import FeatureSettings, MarketSettings

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.settings import Settings

__all__ = [
    "BARS",
    "DATASET",
    "FeatureResult",
    "FeatureTask",
    "available_columns",
    "load_catalog",
    "run_features",
    "run_ranges",
]

_log = logging.getLogger(__name__)

BARS = "bronze/bars"
DATASET = "silver/features"

_OPTIONAL = ("volume", "bid", "ask")


@dataclass(frozen=True)
class FeatureTask:
    """What every task of a run needs to know; small, and equal on every node."""

    lake_uri: str
    dataset: str
    features: FeatureSettings
    market: MarketSettings
    available: tuple[str, ...]
    interval_minutes: int
    catalog_hash: str


@dataclass(frozen=True)
class FeatureResult:
    """Outcome of the stage.

    Attributes
    ----------
    written, skipped:
        Partitions computed now, and those that were right already.
    rows:
        Feature rows stored for the instrument, over all partitions.
    months:
        Labels of the partitions, in time order.
    features, lookback, catalog_hash:
        Number of features, bars that a row depends on, and identity of the catalog.
    dropped:
        Features that the bars cannot carry.
    """

    written: int
    skipped: int
    rows: int
    months: tuple[str, ...]
    features: int
    lookback: int
    catalog_hash: str
    dropped: tuple[str, ...]


def run_features(settings: Settings, *, workers: int | None = None) -> FeatureResult:
    """Compute silver/features for every stored month of the instrument's bars.

    Parameters
    ----------
    workers:
        Tasks at once; by default as many as the cluster's CPUs allow.

    Raises
    ------
    LakeError
        There are no bars, or the lake cannot be read or written.
    DataError
        The bars of a month are not what the kernel requires.
    SettingsError
        The feature or market settings are wrong.
    ClusterError
        A task ended with an error of Ray's or an unforeseen one.
    """
    lake = Lake(settings.lake_uri)
    months = _stored_months(lake, settings.instrument)
    result = run_ranges(settings, month_ranges(months), DATASET, workers=workers)
    for partition in lake.partitions(DATASET, instrument=settings.instrument):
        if partition["month"] not in result.months:
            lake.delete(DATASET, partition)
    lake.write_json(
        f"manifests/features/{settings.instrument}.json",
        {
            "key": stage_key(result.catalog_hash, settings.market, [m.content for m in months]),
            "rows_in": sum(m.rows for m in months),
            "rows_out": result.rows,
            "rows_quarantined": 0,
            "rows_dropped": 0,
            "partitions": list(result.months),
            "detail": {
                "catalog_hash": result.catalog_hash,
                "features": result.features,
                "dropped_features": list(result.dropped),
                "lookback": result.lookback,
            },
        },
    )
    return result


def run_ranges(
    settings: Settings, ranges: Sequence[TimeRange], dataset: str, *, workers: int | None = None
) -> FeatureResult:
    """Compute the features of any disjoint time ranges into `dataset`; `run_features` says the rest."""
    lake = Lake(settings.lake_uri)
    months = _stored_months(lake, settings.instrument)
    available = available_columns(lake, settings.instrument)
    catalog = load_catalog(settings.features, available, settings.bar_interval_minutes)
    task = FeatureTask(
        lake_uri=settings.lake_uri,
        dataset=dataset,
        features=settings.features,
        market=settings.market,
        available=available,
        interval_minutes=settings.bar_interval_minutes,
        catalog_hash=catalog.hash,
    )
    recipe = digest(catalog.hash, hours(settings.market), code_hash("marketray.features"))
    items = plan_items(settings.instrument, months, ranges, catalog.lookback, recipe)
    missing = [i for i in items if not lake.is_current(dataset, i.partition, i.key)]
    if missing:
        _execute(task, missing, workers)
    stored = [lake.manifest(dataset, i.partition) for i in items]
    return FeatureResult(
        written=len(missing),
        skipped=len(items) - len(missing),
        rows=sum(m.rows_out for m in stored if m is not None),
        months=tuple(i.span.label for i in items),
        features=len(catalog.names),
        lookback=catalog.lookback,
        catalog_hash=catalog.hash,
        dropped=catalog.dropped,
    )


def available_columns(lake: Lake, instrument: str) -> tuple[str, ...]:
    """Bar columns that hold a value in any stored month; a volume that is null throughout is absent."""
    found: dict[str, None] = {}
    for partition in lake.partitions(BARS, instrument=instrument):
        manifest = lake.manifest(BARS, partition)
        rows = manifest.rows_out if manifest is not None else 0
        nulls = lake.null_counts(BARS, partition)
        found.update(dict.fromkeys(name for name, count in nulls.items() if count < rows))
        if found.keys() >= set(_OPTIONAL):
            break
    return tuple(sorted(found))


@lru_cache(maxsize=8)
def load_catalog(features: FeatureSettings, available: tuple[str, ...], interval_minutes: int) -> Catalog:
    """`build_catalog`, once a process."""
    from marketray.features.catalog import build_catalog

    return build_catalog(features, available, interval_minutes)


def _stored_months(lake: Lake, instrument: str) -> list[BarMonth]:
    months = []
    for partition in lake.partitions(BARS, instrument=instrument):
        manifest = lake.manifest(BARS, partition)
        if manifest is not None and manifest.rows_out:
            months.append(BarMonth(partition["month"], manifest.rows_out, manifest.content))
    if not months:
        msg = f"{BARS}: no bars of instrument={instrument} in {lake.uri}"
        raise LakeError(msg, hint="run `marketray ingest` first, or check `instrument` and `lake`")
    return months


def _execute(task: FeatureTask, items: Sequence[WorkItem], workers: int | None) -> None:
    import ray
    from ray.data import TaskPoolStrategy

    rows = [{"item": json.dumps(asdict(item), default=datetime.isoformat)} for item in items]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        compute_features,  # type: ignore[arg-type]  # Ray's signature does not know fn_kwargs
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=1,
        compute=TaskPoolStrategy(size=workers and min(workers, len(rows))),
        fn_kwargs={"task": task},
    )
    dataset.set_name(f"features:{items[0].instrument}")
    # Half of the resources would stay reserved for an operator that needs none: one task at a time on
    # two CPUs. The tasks return a row each, so the object store needs no guard.
    dataset.context.op_resource_reservation_enabled = False
    _log.info("features: %d partitions of %s", len(items), items[0].instrument)
    try:
        rows = dataset.take_all()
    except ray.exceptions.RayError as e:
        msg = f"features: a task failed: {str(e).strip().splitlines()[-1]}"
        raise ClusterError(msg, hint="the Ray dashboard and --debug show the task's whole error") from e
    failed = sorted((row for row in rows if row["error"]), key=lambda row: str(row["partition"]))
    for row in failed:
        _log.error("features: %s: %s", row["partition"], row["message"])
    if failed:
        kind: type[MarketrayError] = getattr(errors, failed[0]["error"])
        msg = f"{failed[0]['partition']}: {failed[0]['message']}"
        raise kind(msg, hint=failed[0]["hint"] or None)


def compute_features(batch: pa.Table, task: FeatureTask) -> pa.Table:
    """Compute and store the items of a batch; return a row with partition, row count and error for each.

    Errors that marketray raises on purpose come back in the row, since Ray Data keeps only the text of
    an exception; the driver raises them again as what they were.
    """
    # Ray gives a task one CPU; Polars would start a thread for each CPU of the node.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    return pa.Table.from_pylist([_outcome(_parse_item(text), task) for text in batch["item"].to_pylist()])


def _outcome(item: WorkItem, task: FeatureTask) -> dict[str, Any]:
    row = {"partition": "/".join(item.partition.values()), "rows": 0, "error": "", "message": "", "hint": ""}
    try:
        row["rows"] = _compute_item(item, task)
    except MarketrayError as e:
        row |= {"error": type(e).__name__, "message": e.message, "hint": e.hint or ""}
    return row


def _parse_item(text: str) -> WorkItem:
    raw: dict[str, Any] = json.loads(text)
    span = raw.pop("span")
    start, end = (datetime.fromisoformat(span[name]) for name in ("start", "end"))
    months = tuple(raw.pop("months"))
    return WorkItem(span=TimeRange(span["level"], span["label"], start, end), months=months, **raw)


def _compute_item(item: WorkItem, task: FeatureTask) -> int:
    """Read, compute and store one item; return its number of rows."""
    from marketray.features.kernel import compute_range
    from marketray.sessions import trading_sessions

    catalog = load_catalog(task.features, task.available, task.interval_minutes)
    if catalog.hash != task.catalog_hash:
        msg = f"features: this node's catalog is {catalog.hash}, the driver's is {task.catalog_hash}"
        raise DataError(msg, hint="install the same version of marketray on every node")
    lake = Lake(task.lake_uri)
    bars = _read_bars(lake, item, catalog.columns)
    sessions = trading_sessions(
        task.market.calendar, bars["time"][0].as_py().date(), item.span.end.date(), task.market.breaks
    )
    table = compute_range(catalog, bars, sessions, item.span.start, item.span.end, from_start=item.from_start)
    manifest = Manifest(
        key=item.key, content=table_hash(table), rows_in=table.num_rows, rows_out=table.num_rows
    )
    lake.write(task.dataset, item.partition, table, manifest)
    return int(table.num_rows)


def _read_bars(lake: Lake, item: WorkItem, columns: Sequence[str]) -> pa.Table:
    """The item's months as one table; a column that a month lacks is null there."""
    tables = []
    for month in item.months:
        table = lake.read(BARS, {"instrument": item.instrument, "month": month})
        for name in columns:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
        tables.append(table.select(columns).replace_schema_metadata(None))
    return pa.concat_tables(tables)
