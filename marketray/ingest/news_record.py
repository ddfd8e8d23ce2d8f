"""What an ingest of articles leaves behind: its result, and how unchanged files are recognised."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from marketray.hashing import code_hash, digest
from marketray.ingest.article_store import COPIES
from marketray.ingest.bronze import ARTICLES

if TYPE_CHECKING:
    from marketray.lake import Lake
    from marketray.settings import NewsSettings, Settings

__all__ = [
    "QUARANTINED",
    "NewsResult",
    "manifest_name",
    "news_key",
    "report_name",
    "result_json",
    "unchanged_news",
]

_log = logging.getLogger(__name__)

QUARANTINED = "quarantine/articles"


@dataclass(frozen=True)
class NewsResult:
    """What an ingest did with articles.

    rows_in = rows_out + rows_quarantined + rows_dropped + rows_duplicate.

    Attributes
    ----------
    written, skipped:
        Partitions written, and those that were right already.
    rows_in:
        Articles in the files.
    rows_out:
        Articles of these files that bronze holds.
    rows_quarantined, rows_dropped, rows_duplicate:
        Articles refused, left out by the settings, and copies of an article that was known earlier.
    quarantined, dropped, duplicates:
        The same by reason.
    rows_replaced:
        Articles of earlier files that gave way to a copy in these files which was known before them.
    rows_restored:
        Copies of earlier files that are stored as articles now, since the first of them was in these files
        and is there no more.
    months:
        Months that hold articles now, "YYYY-MM" of `available_at` in UTC.
    known:
        By source ("" where an article names none) of all stored articles: ``first`` and ``last``
        `available_at`, ISO 8601 in UTC, and the number of ``articles``.
    key:
        Digest of the files, the settings that matter, and the code.
    """

    instrument: str
    written: int
    skipped: int
    rows_in: int
    rows_out: int
    rows_quarantined: int
    rows_dropped: int
    rows_duplicate: int
    quarantined: dict[str, int]
    dropped: dict[str, int]
    duplicates: dict[str, int]
    rows_replaced: int
    rows_restored: int
    months: list[str]
    known: dict[str, dict[str, Any]]
    key: str


def manifest_name(instrument: str) -> str:
    """Where the lake keeps the manifest of the last successful ingest of articles."""
    return f"manifests/news/{instrument}.json"


def report_name(instrument: str) -> str:
    """Where the lake keeps the report of the last ingest of articles, passed or failed."""
    return f"manifests/news/{instrument}.report.json"


def news_key(settings: Settings, news: NewsSettings, prints: list[dict[str, str | int]]) -> str:
    """Digest of the files' content in any order, the settings that matter, and the code."""
    contents = sorted(str(p["sha256"]) for p in prints)
    declared = [news.model_dump(mode="json", exclude={"paths"}), settings.instrument, settings.clock]
    return digest(contents, declared, code_hash("marketray.ingest", "marketray.lake"))


def unchanged_news(settings: Settings, lake: Lake, key: str) -> NewsResult | None:
    """The last ingest's result where its files, settings and partitions are what they were."""
    instrument = settings.instrument
    stored = lake.read_json(manifest_name(instrument))
    if stored is None or stored["key"] != key:
        return None
    if settings.clock in ("data", "system") and "after_clock" in stored["result"]["quarantined"]:
        return None  # what lay in the future may have come true
    for p in [*stored["partitions"], *stored["quarantine"]]:
        found = lake.manifest(p["dataset"], {"instrument": instrument, "month": p["month"]})
        if found is None or found.content != p["content"]:
            return None
    present = sum(len(lake.partitions(dataset, instrument=instrument)) for dataset in (ARTICLES, COPIES))
    if present != len(stored["partitions"]):
        return None
    if lake.read_json(report_name(instrument)) != stored["report"]:
        lake.write_json(report_name(instrument), stored["report"])
    partitions = len(stored["partitions"]) + len(stored["quarantine"])
    _log.info("news %s: the files have not changed; %d partitions are right", instrument, partitions)
    return NewsResult(**stored["result"], written=0, skipped=partitions)


def result_json(result: NewsResult) -> dict[str, Any]:
    """The result without what depends on what the lake held before."""
    return {k: v for k, v in asdict(result).items() if k not in ("written", "skipped")}
