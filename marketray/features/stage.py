"""Bars to features on Ray Data: a task for a month, or for several short ones, with their halo.

Tasks write their partition themselves and return one small row, so no feature table travels through
the object store. A finished partition whose inputs, settings and code are unchanged is not done again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from marketray import errors
from marketray.bars import OPTIONAL
from marketray.errors import ClusterError, LakeError, MarketrayError
from marketray.features.definition import NEWS
from marketray.features.items import (
    BarMonth,
    TimeRange,
    WorkItem,
    batches,
    hours,
    month_ranges,
    plan_items,
    stage_key,
)
from marketray.features.work import BARS, FeatureTask, compute_features, load_catalog, where
from marketray.hashing import code_hash, digest
from marketray.lake import Lake
from marketray.sentiment.store import news_contents, require_scored, stored_scorer

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.settings import Settings

__all__ = [
    "BARS",
    "DATASET",
    "FeatureResult",
    "available_columns",
    "run_features",
    "run_ranges",
]

_log = logging.getLogger(__name__)

DATASET = "silver/features"

_BATCH_BARS = 5_000
"""Months of long bars are short; so many bars are worth a task of their own."""


@dataclass(frozen=True)
class FeatureResult:
    """Outcome of the stage.

    Attributes
    ----------
    written, skipped:
        Partitions computed now, and those that were right already, over all instruments.
    rows:
        Feature rows stored, over all partitions and instruments.
    months:
        Labels of the partitions, in time order; of several instruments those that any has.
    features, lookback, catalog_hash:
        Number of features, bars that a row depends on, and identity of the catalog.
    dropped:
        Features that the bars cannot carry.
    instruments:
        Where the settings name several: the result of each. `features`, `lookback`, `catalog_hash` and
        `dropped` above are then those of `instrument`, the one that is labelled.
    """

    written: int
    skipped: int
    rows: int
    months: tuple[str, ...]
    features: int
    lookback: int
    catalog_hash: str
    dropped: tuple[str, ...]
    instruments: dict[str, FeatureResult] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """The work on one instrument."""

    instrument: str
    months: list[BarMonth]
    available: tuple[str, ...]
    catalog: Catalog
    news: dict[str, str]
    scorer: str | None
    items: list[WorkItem]


def run_features(settings: Settings, *, workers: int | None = None) -> FeatureResult:
    """Compute silver/features for every stored month of every instrument's bars, in one Ray Data execution.

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
    plans = [_plan(settings, lake, name) for name in settings.panel]
    result = _run(settings, plans, DATASET, workers, batch_bars=_BATCH_BARS)
    for plan in plans:
        own = result.instruments.get(plan.instrument, result)
        for partition in lake.partitions(DATASET, instrument=plan.instrument):
            if partition["month"] not in own.months:
                lake.delete(DATASET, partition)
        name = f"manifests/features/{plan.instrument}.json"
        lake.write_json(name, _manifest_json(settings, plan, own))
    return result


def run_ranges(
    settings: Settings, ranges: Sequence[TimeRange], dataset: str, *, workers: int | None = None
) -> FeatureResult:
    """Compute the features of any disjoint time ranges into `dataset`, one task a range.

    `run_features` says the rest.
    """
    lake = Lake(settings.lake_uri)
    plans = [_plan(settings, lake, name, ranges) for name in settings.panel]
    return _run(settings, plans, dataset, workers, batch_bars=0)


def _plan(
    settings: Settings, lake: Lake, instrument: str, ranges: Sequence[TimeRange] | None = None
) -> _Plan:
    months = _stored_months(lake, instrument)
    available = available_columns(lake, instrument, news=settings.sentiment.enabled)
    catalog = load_catalog(settings.features, available, settings.bar_interval_minutes)
    recipe = digest(catalog.hash, hours(settings.market), code_hash("marketray.features"))
    spans = month_ranges(months) if ranges is None else ranges
    news = news_contents(lake, instrument) if catalog.news_columns else {}
    scorer = stored_scorer(lake, instrument) if news else None
    items = plan_items(instrument, months, spans, catalog.lookback, recipe, news)
    return _Plan(instrument, months, available, catalog, news, scorer, items)


def _run(
    settings: Settings, plans: Sequence[_Plan], dataset: str, workers: int | None, *, batch_bars: int
) -> FeatureResult:
    lake = Lake(settings.lake_uri)
    rows: dict[WorkItem, int] = {}
    for item in (i for plan in plans for i in plan.items):
        found = lake.manifest(dataset, item.partition)
        if found is not None and found.key == item.key:
            rows[item] = found.rows_out
    work, done = [], dict(rows)
    for plan in plans:
        missing = [i for i in plan.items if i not in rows]
        bars = {m.month: m.rows for m in plan.months}
        work += batches(missing, bars, batch_bars) if batch_bars else [[i] for i in missing]
    if work:
        task = FeatureTask(
            lake_uri=settings.lake_uri,
            dataset=dataset,
            features=settings.features,
            market=settings.market,
            interval_minutes=settings.bar_interval_minutes,
            available={p.instrument: p.available for p in plans},
            catalog_hash={p.instrument: p.catalog.hash for p in plans},
        )
        done |= _execute(task, work, workers)
    results = {p.instrument: _result(p, rows, done) for p in plans}
    return _together(settings, results)


def _result(plan: _Plan, before: Mapping[WorkItem, int], done: Mapping[WorkItem, int]) -> FeatureResult:
    skipped = sum(item in before for item in plan.items)
    return FeatureResult(
        written=len(plan.items) - skipped,
        skipped=skipped,
        rows=sum(done[item] for item in plan.items),
        months=tuple(i.span.label for i in plan.items),
        features=len(plan.catalog.names),
        lookback=plan.catalog.lookback,
        catalog_hash=plan.catalog.hash,
        dropped=plan.catalog.dropped,
    )


def _together(settings: Settings, results: dict[str, FeatureResult]) -> FeatureResult:
    """Totals over several instruments; the result itself where the settings name none."""
    labelled = results[settings.instrument]
    if not settings.instruments:
        return labelled
    return replace(
        labelled,
        written=sum(r.written for r in results.values()),
        skipped=sum(r.skipped for r in results.values()),
        rows=sum(r.rows for r in results.values()),
        months=tuple(sorted({month for r in results.values() for month in r.months})),
        instruments=results,
    )


def _manifest_json(settings: Settings, plan: _Plan, result: FeatureResult) -> dict[str, Any]:
    contents = [m.content for m in plan.months]
    return {
        "key": stage_key(result.catalog_hash, settings.market, contents, plan.news),
        "rows_in": sum(m.rows for m in plan.months),
        "rows_out": result.rows,
        "rows_quarantined": 0,
        "rows_dropped": 0,
        "partitions": list(result.months),
        "detail": {
            "catalog_hash": result.catalog_hash,
            "features": result.features,
            "dropped_features": list(result.dropped),
            "lookback": result.lookback,
            "scorer": plan.scorer,
        },
    }


def available_columns(lake: Lake, instrument: str, *, news: bool = True) -> tuple[str, ...]:
    """Bar columns that hold a value in any stored month, and `NEWS` where there are scored articles.

    A volume that is null throughout is absent.

    Parameters
    ----------
    news:
        False: scored articles are left alone.

    Raises
    ------
    LakeError
        The articles have changed since they were scored.
    """
    found: dict[str, None] = {}
    for partition in lake.partitions(BARS, instrument=instrument):
        manifest = lake.manifest(BARS, partition)
        rows = manifest.rows_out if manifest is not None else 0
        nulls = lake.null_counts(BARS, partition)
        found.update(dict.fromkeys(name for name, count in nulls.items() if count < rows))
        if found.keys() >= set(OPTIONAL):
            break
    scored = news and bool(news_contents(lake, instrument))
    if scored:
        require_scored(lake, instrument)
    return (*sorted(found), *([NEWS] if scored else []))


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


def _execute(
    task: FeatureTask, work: Sequence[Sequence[WorkItem]], workers: int | None
) -> dict[WorkItem, int]:
    """Compute and store all batches of `work`; how many rows each item has."""
    import ray
    from ray.data import TaskPoolStrategy

    rows = [{"items": json.dumps([asdict(i) for i in batch], default=datetime.isoformat)} for batch in work]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        compute_features,  # type: ignore[arg-type]  # Ray's signature does not know fn_kwargs
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=1,
        compute=TaskPoolStrategy(size=workers and min(workers, len(rows))),
        fn_kwargs={"task": task},
    )
    names = list(dict.fromkeys(batch[0].instrument for batch in work))
    shown = names[0] if len(names) == 1 else f"{len(names)} instruments"
    dataset.set_name(f"features:{shown}")
    # Half of the resources would stay reserved for an operator that needs none: one task at a time on
    # two CPUs. The tasks return a row for each item, so the object store needs no guard.
    dataset.context.op_resource_reservation_enabled = False
    _log.info("features: %d partitions of %s in %d tasks", sum(map(len, work)), shown, len(work))
    try:
        outcomes = dataset.take_all()
    except ray.exceptions.RayError as e:
        msg = f"features: a task failed: {str(e).strip().splitlines()[-1]}"
        raise ClusterError(msg, hint="the Ray dashboard and --debug show the task's whole error") from e
    failed = sorted((row for row in outcomes if row["error"]), key=lambda row: str(row["where"]))
    for row in failed:
        _log.error("features: %s: %s", row["where"], row["message"])
    if failed:
        kind: type[MarketrayError] = getattr(errors, failed[0]["error"])
        msg = f"{failed[0]['where']}: {failed[0]['message']}"
        raise kind(msg, hint=failed[0]["hint"] or None)
    counts = {row["where"]: row["rows"] for row in outcomes}
    return {item: n for batch in work for item, n in zip(batch, counts[where(batch)], strict=True)}
