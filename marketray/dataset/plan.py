"""What the dataset stage has to do: which months, from which inputs, into which partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marketray.bars import COLUMNS, REQUIRED
from marketray.dataset.load import DATASET, VAULT
from marketray.dataset.splits import VAULT_SPLITS, Split
from marketray.errors import LakeError
from marketray.features.definition import NEWS
from marketray.features.items import stage_key
from marketray.hashing import digest
from marketray.lake import Lake, Manifest, Partition
from marketray.sentiment.store import news_contents
from marketray.settings import Settings

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog

__all__ = [
    "BARS",
    "ELIGIBLE",
    "FEATURES",
    "Month",
    "Target",
    "delete_stale",
    "eligible_partition",
    "plan_months",
    "plan_targets",
    "stored_catalog",
]

BARS = "bronze/bars"
FEATURES = "silver/features"
ELIGIBLE = "silver/eligible"
"""Times of the eligible rows of a dataset: {name, instrument, month}; neither labels nor features."""


@dataclass(frozen=True)
class Month:
    """What a task needs to know about one month.

    Attributes
    ----------
    month, next_month:
        YYYY-MM of this month and of the next one that has bars.
    warm_up_rows:
        How many of the month's first bars come before the catalog's full lookback.
    inputs:
        Digest of the content of its bars, the following bars and its features.
    """

    month: str
    next_month: str | None
    warm_up_rows: int
    inputs: str


@dataclass(frozen=True)
class Target:
    """A gold partition to write: the eligible rows [start, stop) of a month."""

    dataset: str
    partition: Partition
    start: int
    stop: int
    key: str


def stored_catalog(settings: Settings, lake: Lake) -> Catalog:
    """The catalog that the stored features were made with.

    An optional input counts as present where some feature that needs it is stored.

    Raises
    ------
    LakeError
        There are no features, or not those of the settings' catalog.
    """
    from marketray.features.catalog import build_catalog

    found = lake.partitions(FEATURES, instrument=settings.instrument)
    if not found:
        msg = f"{FEATURES} has no partition for instrument={settings.instrument} in {settings.lake_uri}"
        raise LakeError(msg, hint="run the features stage (marketray features) first")
    stored = set(lake.null_counts(FEATURES, found[-1]))
    interval = settings.bar_interval_minutes
    everything = build_catalog(settings.features, (*COLUMNS, NEWS), interval)
    present = {name for f in everything.features if f.name in stored for name in f.inputs}
    catalog = build_catalog(settings.features, (*REQUIRED, *sorted(present)), interval)
    missing = [name for name in catalog.names if name not in stored]
    if missing:
        msg = f"{FEATURES} lacks {len(missing)} columns of the catalog, such as {missing[:3]}"
        raise LakeError(msg, hint="run the features stage again")
    return catalog


def eligible_partition(settings: Settings, month: str) -> Partition:
    """Where the eligible rows of a month are listed."""
    return {"name": settings.name, "instrument": settings.instrument, "month": month}


def plan_months(settings: Settings, lake: Lake, catalog: Catalog) -> list[Month]:
    """All months of the instrument in time order.

    Raises
    ------
    LakeError
        There are no bars, bars and features do not have the same months, or the features stage last
        finished with other bars, another catalog or other hours.
    """
    keys = {"instrument": settings.instrument}
    found_bars = {p["month"]: lake.manifest(BARS, p) for p in lake.partitions(BARS, **keys)}
    bars = {month: manifest for month, manifest in found_bars.items() if _rows(manifest)}
    features = {p["month"]: lake.manifest(FEATURES, p) for p in lake.partitions(FEATURES, **keys)}
    if not bars:
        msg = f"{BARS} has no partition for instrument={settings.instrument} in {settings.lake_uri}"
        raise LakeError(msg, hint="run the ingest stage (marketray ingest) first")
    if bars.keys() != features.keys():
        differ = sorted(bars.keys() ^ features.keys())
        msg = f"{BARS} and {FEATURES} differ in the months {differ}; required: the same months"
        raise LakeError(msg, hint="run the features stage again")
    _require_fresh(settings, lake, catalog, [_content(m) for m in bars.values()])
    names, found, before = list(bars), [], 0
    for i, month in enumerate(names):
        following = names[i + 1] if i + 1 < len(names) else None
        warm_up = max(0, catalog.lookback - 1 - before)
        contents = [
            _content(m) for m in (bars[month], bars[following] if following else None, features[month])
        ]
        found.append(Month(month, following, warm_up, digest(contents)))
        before += _rows(bars[month])
    return found


def _require_fresh(settings: Settings, lake: Lake, catalog: Catalog, contents: list[str | None]) -> None:
    """Compare the features stage's own key, where it left one, with the bars, catalog and hours of now."""
    manifest = lake.read_json(f"manifests/features/{settings.instrument}.json")
    news = news_contents(lake, settings.instrument) if catalog.news_columns else {}
    if manifest is not None and manifest["key"] != stage_key(catalog.hash, settings.market, contents, news):
        msg = (
            f"{FEATURES} of {settings.instrument} was made from other bars or news, with another catalog, or "
            "for another market.calendar or market.breaks"
        )
        raise LakeError(msg, hint="run the features stage again")


def _content(manifest: Manifest | None) -> str | None:
    return manifest.content if manifest else None


def _rows(manifest: Manifest | None) -> int:
    return manifest.rows_out if manifest else 0


def plan_targets(settings: Settings, lake: Lake, split: Split, m: Month, offset: int) -> list[Target]:
    """Gold partitions of one month, whose first eligible row is number `offset` of all."""
    eligible = lake.manifest(ELIGIBLE, eligible_partition(settings, m.month))
    if eligible is None:
        return []
    found, rows = [], eligible.rows_out
    for name, block in split.blocks.items():
        start, stop = max(block.start - offset, 0), min(block.stop - offset, rows)
        if start < stop:
            partition = {
                "name": settings.name,
                "split": name,
                "instrument": settings.instrument,
                "month": m.month,
            }
            dataset = VAULT if name in VAULT_SPLITS else DATASET
            key = digest(eligible.key, split.columns, start, stop)
            found.append(Target(dataset, partition, start, stop, key))
    return found


def delete_stale(settings: Settings, lake: Lake, months: Sequence[Month], targets: Sequence[Target]) -> None:
    """Remove partitions that an earlier split or a longer history left behind."""
    planned = {(t.dataset, tuple(t.partition.values())) for t in targets}
    planned |= {(ELIGIBLE, tuple(eligible_partition(settings, m.month).values())) for m in months}
    for dataset in (DATASET, VAULT, ELIGIBLE):
        for partition in lake.partitions(dataset, name=settings.name):
            if (dataset, tuple(partition.values())) not in planned:
                lake.delete(dataset, partition)
