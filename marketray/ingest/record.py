"""What an ingest leaves behind: its result, its manifest, and how an unchanged source is recognised."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from marketray.hashing import code_hash, digest
from marketray.ingest.bronze import Published
from marketray.ingest.checks import SourceCounts, as_json, check_source, raise_for_failed
from marketray.ingest.clock import resolve_clock
from marketray.ingest.news_record import NewsResult
from marketray.ingest.sources.files import expand_paths, fingerprint
from marketray.lake import Lake
from marketray.settings import FileSource

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.settings import Settings

__all__ = [
    "FileSpans",
    "IngestResult",
    "file_spans",
    "manifest_json",
    "manifest_name",
    "panel_result",
    "report_name",
    "source_key",
    "stored_names",
    "superseded",
    "unchanged",
]

_log = logging.getLogger(__name__)

Prints = Sequence[dict[str, str | int]]


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did; rows_in = rows_out + rows_quarantined + rows_dropped.

    Attributes
    ----------
    written, skipped:
        Partitions written, and those that were right already.
    rows_in:
        Rows that the source has.
    rows_out, rows_quarantined:
        Bars accepted and refused.
    rows_dropped:
        Rows of other instruments, left out by `source.select`.
    months:
        Months of bars that the source holds, "YYYY-MM" in UTC.
    has_volume, has_quotes, has_sizes:
        Whether the bars have a volume, bid and ask, and the sizes there.
    data_start, data_end:
        Open of the first and end of the last bar, UTC.
    key:
        Digest of the source, the settings that matter, and the code.
    instruments:
        Where the settings name several: what was done for each. The numbers above are then sums over them
        without `rows_dropped`, which every instrument's own result has; the months are those that any has,
        and volume, quotes and sizes count as present where any instrument has them.
    news:
        What was done with the articles, where the settings name some; the numbers above are those of bars.
    """

    instrument: str
    written: int
    skipped: int
    rows_in: int
    rows_out: int
    rows_quarantined: int
    rows_dropped: int
    months: list[str]
    has_volume: bool
    has_quotes: bool
    has_sizes: bool
    data_start: datetime
    data_end: datetime
    key: str
    instruments: dict[str, IngestResult] = field(default_factory=dict)
    news: NewsResult | None = None


def panel_result(instrument: str, results: dict[str, IngestResult]) -> IngestResult:
    """One result for several instruments; `instrument` names the one that is labelled."""
    found = list(results.values())
    return IngestResult(
        instrument=instrument,
        written=sum(r.written for r in found),
        skipped=sum(r.skipped for r in found),
        rows_in=sum(r.rows_in - r.rows_dropped for r in found),
        rows_out=sum(r.rows_out for r in found),
        rows_quarantined=sum(r.rows_quarantined for r in found),
        rows_dropped=0,
        months=sorted({month for r in found for month in r.months}),
        has_volume=any(r.has_volume for r in found),
        has_quotes=any(r.has_quotes for r in found),
        has_sizes=any(r.has_sizes for r in found),
        data_start=min(r.data_start for r in found),
        data_end=max(r.data_end for r in found),
        key=digest([r.key for r in found]),
        instruments=results,
    )


def manifest_name(instrument: str) -> str:
    """Where the lake keeps the manifest of the last successful ingest of an instrument."""
    return f"manifests/ingest/{instrument}.json"


def report_name(instrument: str) -> str:
    """Where the lake keeps the report of the last ingest of an instrument, passed or failed."""
    return f"manifests/ingest/{instrument}.report.json"


def source_key(settings: Settings) -> tuple[str, list[dict[str, str | int]]]:
    """Digest of the source, the settings that matter and the code; and the files' fingerprints."""
    source = settings.source
    declared = source.model_dump(mode="json")
    prints: list[dict[str, str | int]] = []
    if isinstance(source, FileSource):
        prints = fingerprint(expand_paths(source.paths, settings.resolve))
        declared.pop("paths")
    key = digest(
        prints,
        declared,
        settings.instrument,
        settings.bar_interval_minutes,
        settings.clock,
        settings.market.model_dump(mode="json", include={"calendar", "breaks"}),
        settings.quality.model_dump(mode="json"),
        code_hash("marketray.bars", "marketray.ingest", "marketray.sessions", "marketray.lake"),
    )
    return key, prints


FileSpans = dict[str, dict[str, Any]]
"""Path -> `sha256`, `declared` (a digest of how it was read) and `first_us`, `last_us`, its source's span."""


def file_spans(settings: Settings, lake: Lake, prints: Prints, first_us: int, last_us: int) -> FileSpans:
    """Spans of the files that this instrument's bars came from, those of the source as they are now.

    A file whose whole span the source now fills has no bar left and is forgotten.
    """
    if not isinstance(settings.source, FileSource):
        return {}
    span = {"declared": _declaration(settings), "first_us": first_us, "last_us": last_us}
    now = {
        path: {"sha256": p["sha256"], **span}
        for path, p in zip(_paths(settings, settings.source), prints, strict=True)
    }
    left = {
        path: known
        for path, known in _known_files(settings, lake).items()
        if known["first_us"] < first_us or known["last_us"] > last_us
    }
    return {**left, **now}


def superseded(settings: Settings, lake: Lake, prints: Prints) -> list[tuple[int, int]]:
    """Spans, us UTC, that the source's files filled when they were read with other stamps, columns or rows.

    Their bars lay at other times or had other values, so they must not stay beside the new ones. A file is
    the same where its path or its content is.
    """
    if not isinstance(settings.source, FileSource):
        return []
    paths = _paths(settings, settings.source)
    contents, declared = {p["sha256"] for p in prints}, _declaration(settings)
    return sorted(
        {
            (known["first_us"], known["last_us"])
            for path, known in _known_files(settings, lake).items()
            if (path in paths or known["sha256"] in contents) and known["declared"] != declared
        }
    )


def stored_names(paths: Sequence[Path], home: Path) -> list[str]:
    """Names of files in the lake: those below home as they lie there, so that home can move."""
    return [str(p.relative_to(home) if p.is_relative_to(home) else p) for p in paths]


def _paths(settings: Settings, source: FileSource) -> list[str]:
    """The source's files in order."""
    return stored_names(expand_paths(source.paths, settings.resolve), settings.home_path)


def _declaration(settings: Settings) -> str:
    return digest(settings.source.model_dump(mode="json", exclude={"paths", "volume"}))


def _known_files(settings: Settings, lake: Lake) -> FileSpans:
    stored = lake.read_json(manifest_name(settings.instrument)) or {}
    known: FileSpans = stored.get("detail", {}).get("files", {})
    return known


def unchanged(settings: Settings, lake: Lake, key: str) -> IngestResult | None:
    """The last ingest's result where its source, settings and partitions are what they were, and fresh."""
    stored = lake.read_json(manifest_name(settings.instrument))
    if stored is None or stored["key"] != key:
        return None
    if settings.clock == "system" and "after_clock" in stored["detail"]["report"]["reasons"]:
        return None  # what lay in the future may have come true
    for p in stored["partitions"]:
        found = lake.manifest(p["dataset"], {"instrument": settings.instrument, "month": p["month"]})
        if found is None or found.content != p["content"]:
            return None
    present = {p["month"] for p in lake.partitions("quarantine/bars", instrument=settings.instrument)}
    if not present.issuperset(stored["detail"]["quarantine_months"]):
        return None
    result = stored["detail"]["result"]
    start, end = (datetime.fromisoformat(result[name]) for name in ("data_start", "data_end"))
    report = stored["detail"]["report"]
    counts = SourceCounts(**{name: report[name] for name in SourceCounts.__annotations__} | {"data_end": end})
    checks = check_source(counts, settings.quality, resolve_clock(settings, end))
    name = report_name(settings.instrument)
    if not all(c.passed for c in checks):
        lake.write_json(name, report | {"status": "failed", "checks": as_json(checks)})
        raise_for_failed(checks, settings.instrument, f"{settings.lake_uri}/{name}")
    if lake.read_json(name) != report:
        lake.write_json(name, report)
    partitions = len(stored["partitions"]) + len(stored["detail"]["quarantine_months"])
    again = {"written": 0, "skipped": partitions, "data_start": start, "data_end": end}
    _log.info(
        "ingest %s: the source has not changed; %d partitions are right", settings.instrument, partitions
    )
    return IngestResult(**{**result, **again})


def manifest_json(result: IngestResult, done: Published, detail: dict[str, Any]) -> dict[str, Any]:
    """The stage's manifest; `detail` gains the result."""
    return {
        "key": result.key,
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rows_quarantined": result.rows_quarantined,
        "rows_dropped": result.rows_dropped,
        "partitions": done.partitions,
        "detail": {**detail, "result": _result_json(result)},
    }


def _result_json(result: IngestResult) -> dict[str, Any]:
    """The result without what depends on what the lake held before."""
    values = asdict(result)
    for name in ("data_start", "data_end"):
        values[name] = values[name].isoformat()
    return {k: v for k, v in values.items() if k not in ("written", "skipped", "instruments", "news")}
