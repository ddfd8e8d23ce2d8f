"""Checks of a whole source of bars, and the report that says what, where and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from marketray.errors import QualityError

if TYPE_CHECKING:
    from marketray.settings import QualitySettings

__all__ = ["Check", "SourceCounts", "as_json", "check_source", "raise_for_failed"]


@dataclass(frozen=True)
class SourceCounts:
    """What a source turned out to hold.

    Attributes
    ----------
    rows_in:
        Rows of the selected instrument, good and bad.
    rows_out, rows_quarantined:
        Accepted and refused rows; their sum is `rows_in`.
    reasons:
        Refused rows by reason.
    missing:
        Rows without a value, by column.
    coverage:
        `marketray.ingest.coverage.Coverage.summary`.
    data_end:
        End of the last bar, tz-aware UTC; None where no row was accepted.
    examples:
        First refused rows by reason, with their `source` and `line`.
    """

    rows_in: int
    rows_out: int
    rows_quarantined: int
    reasons: dict[str, int]
    missing: dict[str, int]
    coverage: dict[str, Any]
    data_end: datetime | None
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One check: what was got and required (with the setting's name), where it fails, and what to do."""

    name: str
    passed: bool
    got: str
    required: str
    where: str
    hint: str


def check_source(counts: SourceCounts, quality: QualitySettings, clock: datetime | None) -> list[Check]:
    """All dataset checks, passed and failed.

    Parameters
    ----------
    counts:
        What the source holds.
    quality:
        The limits.
    clock:
        The time that counts as now, tz-aware; None where there is no bar.
    """
    checks = [_quarantined(counts, quality), *_missing(counts, quality), _rows(counts, quality)]
    if counts.data_end is not None and clock is not None:
        checks += [_freshness(counts.data_end, clock, quality), _coverage(counts.coverage, quality)]
        checks += [_spacing(counts, quality)]
    return checks


def raise_for_failed(checks: list[Check], instrument: str, report: str) -> None:
    """Raise QualityError with every failed check; nothing happens where all passed.

    Parameters
    ----------
    report:
        Where the whole report lies.
    """
    failed = [c for c in checks if not c.passed]
    if not failed:
        return
    lines = [f"{c.name}: got {c.got}; required: {c.required}; {c.where}. {c.hint}" for c in failed]
    msg = f"{instrument}: the bars failed {len(failed)} of {len(checks)} checks\n- " + "\n- ".join(lines)
    raise QualityError(msg, hint=f"the lake's bars are as they were; the whole report is in {report}")


def as_json(checks: list[Check]) -> list[dict[str, Any]]:
    """The checks as JSON values."""
    return [asdict(c) for c in checks]


def _quarantined(counts: SourceCounts, quality: QualitySettings) -> Check:
    share = counts.rows_quarantined / counts.rows_in if counts.rows_in else 0.0
    frequent = sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{n} {reason}{_places(counts.examples.get(reason))}" for reason, n in frequent)
    return Check(
        "quarantined",
        share <= quality.max_quarantined_share,
        f"{counts.rows_quarantined} of {counts.rows_in} rows ({share:.2%})",
        f"at most {quality.max_quarantined_share:.2%} (quality.max_quarantined_share)",
        f"by reason: {reasons or 'none'}",
        "See the examples in the report; several instruments in one file need source.instrument_column "
        "or source.select, stamps need the right source.timezone.",
    )


def _places(examples: list[dict[str, Any]] | None) -> str:
    """Where the first refused rows of a reason lie, in brackets."""
    found = [f"{row['source']} line {row['line']}" for row in examples or ()]
    return f" ({', '.join(found)})" if found else ""


def _missing(counts: SourceCounts, quality: QualitySettings) -> list[Check]:
    checks = []
    for column, rows in counts.missing.items():
        share = rows / counts.rows_in if counts.rows_in else 0.0
        checks.append(
            Check(
                f"missing {column}",
                share <= quality.max_missing_share,
                f"{rows} of {counts.rows_in} rows ({share:.2%}) without {column}",
                f"at most {quality.max_missing_share:.2%} (quality.max_missing_share)",
                f"column {column}",
                "Map another column in source.columns, or set source.volume: absent where it has none.",
            )
        )
    return checks


def _rows(counts: SourceCounts, quality: QualitySettings) -> Check:
    return Check(
        "rows",
        counts.rows_out >= quality.min_rows,
        f"{counts.rows_out} usable rows",
        f"at least {quality.min_rows} (quality.min_rows)",
        "the whole source",
        "Bring a longer history; check source.paths, and source.select or the instruments' names.",
    )


def _freshness(data_end: datetime, clock: datetime, quality: QualitySettings) -> Check:
    age = (clock - data_end).total_seconds() / 86_400
    return Check(
        "freshness",
        age <= quality.max_age_days,
        f"a last bar that ended {age:.1f} days before the clock",
        f"at most {quality.max_age_days:g} days (quality.max_age_days)",
        f"last bar ends {data_end.isoformat()}, clock {clock.isoformat()}",
        "Bring newer bars, or set clock: data for data of the past.",
    )


def _coverage(coverage: dict[str, Any], quality: QualitySettings) -> Check:
    share = coverage["share"]
    lowest = ", ".join(f"{m} {s:.1%}" for m, s in coverage["lowest_months"][:3])
    return Check(
        "coverage",
        share is not None and share >= quality.min_coverage,
        f"{coverage['observed']} of {coverage['expected']} bars that the calendar expects"
        + (f" ({share:.1%})" if share is not None else ""),
        f"at least {quality.min_coverage:.1%} (quality.min_coverage)",
        f"lowest months: {lowest or 'none'}; {coverage['sessions_without_bars']} sessions without bars; "
        f"{coverage['outside_sessions']} bars outside sessions",
        "Check market.calendar (--calendar), market.breaks, bar_interval_minutes, source.timezone and "
        "source.stamp.",
    )


def _spacing(counts: SourceCounts, quality: QualitySettings) -> Check:
    overlapping = counts.coverage["overlapping"]
    share = overlapping / counts.rows_out
    return Check(
        "spacing",
        share <= quality.max_quarantined_share,
        f"{overlapping} of {counts.rows_out} bars ({share:.2%}) that open before the last has ended",
        f"at most {quality.max_quarantined_share:.2%} (quality.max_quarantined_share)",
        "the whole source",
        "Set bar_interval_minutes to the length of these bars.",
    )
