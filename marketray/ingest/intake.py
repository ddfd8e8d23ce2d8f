"""One source through all checks into the lake: the whole of an ingest, without Ray."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from marketray.bars import COLUMNS, VALUES
from marketray.errors import DataError
from marketray.ingest.bronze import ARTICLES, ORACLE, Bronze, Published, discard_staging
from marketray.ingest.checks import Check, SourceCounts, as_json, check_source, raise_for_failed
from marketray.ingest.clock import fixed_clock, resolve_clock
from marketray.ingest.coverage import Coverage, SessionIndex
from marketray.ingest.outliers import OutlierCheck
from marketray.ingest.parsing import check_zone, parse_chunk
from marketray.ingest.quality import OrderCheck, row_reasons
from marketray.ingest.quarantine import Quarantine
from marketray.ingest.record import (
    IngestResult,
    file_spans,
    manifest_json,
    manifest_name,
    report_name,
    source_key,
    superseded,
    unchanged,
)
from marketray.ingest.sources.files import RawChunk, read_bars
from marketray.lake import Lake
from marketray.sessions import check_market
from marketray.settings import FileSource

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["ingest_source"]

_log = logging.getLogger(__name__)

_NO_BROKEN = pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String, "text": pl.String})


def ingest_source(settings: Settings) -> IngestResult:
    """Read `settings.instrument` from the source, check it, and put it into the lake.

    A source that has not changed since the last successful ingest (content of its files or settings of
    the simulator, settings of market and quality, code) is not read again, as long as its partitions are
    there; only its age is checked again.

    Raises
    ------
    DataError
        A file cannot be used as declared, or simulated bars would replace ingested ones.
    SettingsError
        The market's calendar, decision hours or breaks are unknown.
    QualityError
        A dataset check failed; the lake's bars and quarantine are as they were, the report says why.
    """
    settings = settings.only(settings.instrument)
    check_market(settings.market)
    lake = Lake(settings.lake_uri)
    key, prints = source_key(settings)
    discard_staging(lake, settings.instrument)
    finished = unchanged(settings, lake, key)
    if finished is not None:
        return finished
    try:
        return _Intake(settings, lake, key, prints).run()
    finally:
        discard_staging(lake, settings.instrument)


class _Intake:
    """One pass over a source."""

    def __init__(self, settings: Settings, lake: Lake, key: str, prints: list[dict[str, str | int]]) -> None:
        self._settings, self._lake, self._key, self._prints = settings, lake, key, prints
        self._sessions = SessionIndex(settings.market.calendar, settings.market.breaks)
        self._order = OrderCheck()
        quality = settings.quality
        self._outliers = OutlierCheck(
            self._sessions,
            outlier_sigma=quality.outlier_sigma,
            spike_sigma=quality.spike_sigma,
            spike_reversal=quality.spike_reversal,
        )
        self._coverage = Coverage(self._sessions, settings.bar_interval_minutes)
        self._bronze = Bronze(
            lake,
            settings.instrument,
            settings.source.kind,
            interval_minutes=settings.bar_interval_minutes,
            superseded=superseded(settings, lake, prints),
        )
        self._quarantine = Quarantine(lake, settings.instrument)
        self._clock = fixed_clock(settings)
        self._rows_in, self._dropped = 0, 0
        self._missing: Counter[str] = Counter()
        self._sources: list[str] = []

    def run(self) -> IngestResult:
        self._bronze.refuse_mixing()
        for chunk in self._chunks():
            self._take(chunk)
        self._finish_checks()
        counts = self._counts()
        clock = None if counts.data_end is None else resolve_clock(self._settings, counts.data_end)
        checks = check_source(counts, self._settings.quality, clock)
        report = self._report(counts, checks)
        name = report_name(self._settings.instrument)
        if not all(c.passed for c in checks):
            self._lake.write_json(name, report)
            raise_for_failed(checks, self._settings.instrument, f"{self._settings.lake_uri}/{name}")
        volume = self._settings.source.volume if isinstance(self._settings.source, FileSource) else "present"
        done = self._bronze.publish(volume, self._quarantine.months)
        written, skipped, refused = self._quarantine.publish(self._sources, self._settings.source.kind)
        result = self._result(counts, done, volume, written, skipped)
        files = file_spans(self._settings, self._lake, self._prints, *self._bronze.span_us)
        detail = {"report": report, "quarantine_months": refused, "files": files}
        self._lake.write_json(name, report)
        self._lake.write_json(manifest_name(self._settings.instrument), manifest_json(result, done, detail))
        _log.info(
            "ingest %s: %d rows in, %d out, %d quarantined; %d partitions written, %d right already",
            *(result.instrument, result.rows_in, result.rows_out, result.rows_quarantined),
            *(result.written, result.skipped),
        )
        return result

    def _chunks(self) -> Iterator[RawChunk]:
        source = self._settings.source
        if isinstance(source, FileSource):
            check_zone(source.timezone)
            yield from read_bars(source, self._settings.instrument, self._settings.resolve)
            return
        from marketray.ingest.sources.simulator import simulate

        line = 0
        name = f"simulator-{source.seed}"
        for chunk in simulate(source, self._settings.market, self._settings.instrument):
            self._bronze.stage(ARTICLES, chunk.month, chunk.articles)
            self._bronze.stage(ORACLE, chunk.month, chunk.oracle)
            bars = pl.from_arrow(chunk.bars)
            assert isinstance(bars, pl.DataFrame)
            numbers = pl.Series("line", range(line + 1, line + 1 + len(bars)), dtype=pl.Int64)
            line += len(bars)
            rows = bars.select(numbers, *(c for c in COLUMNS if c in bars.columns))
            yield RawChunk(name, rows, _NO_BROKEN)

    def _take(self, chunk: RawChunk) -> None:
        source, interval = self._settings.source, self._settings.bar_interval_minutes
        if chunk.source not in self._sources:
            self._sources.append(chunk.source)
        self._dropped += chunk.not_selected
        self._rows_in += len(chunk.rows) + len(chunk.broken) + chunk.not_selected
        self._quarantine.add(chunk.broken, chunk.source)
        if not len(chunk.rows):
            return
        timezone, stamp, volume_absent = None, "open", False
        if isinstance(source, FileSource):
            timezone, stamp, volume_absent = source.timezone, source.stamp, source.volume == "absent"
        parsed = parse_chunk(chunk, timezone=timezone, stamp=stamp, interval_minutes=interval)
        self._missing.update(
            {
                c: parsed[c].null_count()
                for c in VALUES
                if c in parsed.columns and not (c == "volume" and volume_absent)
            }
        )
        judged = row_reasons(parsed, interval_minutes=interval, clock=self._clock)
        usable = pl.col("reason").is_null()
        self._quarantine.add(judged.filter(~usable), chunk.source)
        self._order_out(self._order.push(judged.filter(usable)))

    def _order_out(self, rows: tuple[pl.DataFrame, pl.DataFrame]) -> None:
        good, refused = rows
        self._quarantine.add(refused, "")
        self._outliers_out(self._outliers.push(good))

    def _outliers_out(self, rows: tuple[pl.DataFrame, pl.DataFrame]) -> None:
        good, refused = rows
        self._quarantine.add(refused, "")
        self._coverage.add(good["time"].to_physical().to_numpy())
        self._bronze.add(good)

    def _finish_checks(self) -> None:
        waiting = self._order.flush()
        if waiting is not None:
            self._order_out(waiting)
        last = self._outliers.flush()
        if last is not None:
            self._outliers_out(last)
        if self._rows_in == 0:
            names = ", ".join(str(p["name"]) for p in self._prints) or "the source"
            msg = f"source.paths: {names} holds no rows; required: bars"
            raise DataError(msg, hint="check that these are the files you meant")

    def _counts(self) -> SourceCounts:
        bronze, step = self._bronze, self._settings.bar_interval_minutes * 60_000_000
        coverage, end = {}, None
        if bronze.first_us is not None and bronze.last_us is not None:
            coverage = self._coverage.summary(bronze.first_us, bronze.last_us + step)
            end = _moment(bronze.last_us + step)
        missing = dict(sorted(self._missing.items()))
        if not bronze.has_volume:
            missing.pop("volume", None)  # a source without volume has none to miss
        return SourceCounts(
            rows_in=self._rows_in - self._dropped,
            rows_out=bronze.rows,
            rows_quarantined=self._quarantine.rows,
            reasons=dict(sorted(self._quarantine.reasons.items())),
            missing=missing,
            coverage=coverage,
            data_end=end,
            examples=self._quarantine.examples,
        )

    def _report(self, counts: SourceCounts, checks: list[Check]) -> dict[str, Any]:
        found = asdict(counts) | {
            "data_end": None if counts.data_end is None else counts.data_end.isoformat()
        }
        return {
            "status": "passed" if all(c.passed for c in checks) else "failed",
            "instrument": self._settings.instrument,
            "sources": self._prints or self._sources,
            "rows_not_selected": self._dropped,
            "outliers_flagged": self._bronze.outliers,
            **found,
            "checks": as_json(checks),
        }

    def _result(
        self, counts: SourceCounts, done: Published, volume: str, written: int, skipped: int
    ) -> IngestResult:
        bronze = self._bronze
        assert counts.data_end is not None
        assert bronze.first_us is not None
        return IngestResult(
            instrument=self._settings.instrument,
            written=done.written + written,
            skipped=done.skipped + skipped,
            rows_in=self._rows_in,
            rows_out=counts.rows_out,
            rows_quarantined=counts.rows_quarantined,
            rows_dropped=self._dropped,
            months=[p["month"] for p in done.partitions if p["dataset"] == "bronze/bars"],
            has_volume=volume == "present" or (volume == "auto" and bronze.has_volume),
            has_quotes=bronze.has_quotes,
            has_sizes=bronze.has_sizes,
            data_start=_moment(bronze.first_us),
            data_end=counts.data_end,
            key=self._key,
        )


def _moment(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
