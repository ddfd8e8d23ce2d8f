"""Checks of a whole source: each limit from both sides, and what its failure says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from marketray.errors import QualityError
from marketray.ingest.checks import SourceCounts, as_json, check_source, raise_for_failed
from marketray.settings import QualitySettings

END = datetime(2024, 5, 1, tzinfo=UTC)
COVERAGE = {
    "expected": 200,
    "observed": 190,
    "share": 0.95,
    "outside_sessions": 3,
    "overlapping": 4,
    "sessions_without_bars": 1,
    "first_sessions_without_bars": [],
    "lowest_months": [["2024-01", 0.4], ["2024-02", 0.9]],
}
GOOD = SourceCounts(
    rows_in=100,
    rows_out=95,
    rows_quarantined=5,
    reasons={"spike": 1, "duplicate": 4},
    missing={"close": 5, "volume": 0},
    coverage=COVERAGE,
    data_end=END,
)
QUALITY = QualitySettings(min_rows=95, min_coverage=0.95)
CLOCK = END + timedelta(days=7)


def failed(counts: SourceCounts, clock: datetime | None = CLOCK) -> list[str]:
    return [c.name for c in check_source(counts, QUALITY, clock) if not c.passed]


def test_everything_at_its_limit_passes() -> None:
    checks = check_source(GOOD, QUALITY, CLOCK)
    names = ["quarantined", "missing close", "missing volume", "rows", "freshness", "coverage", "spacing"]
    assert [(c.name, c.passed) for c in checks] == [(name, True) for name in names]
    raise_for_failed(checks, "TEST", "report.json")
    assert as_json(checks)[0]["got"] == "5 of 100 rows (5.00%)"


@pytest.mark.parametrize(
    ("change", "clock", "name", "message"),
    [
        ({"rows_quarantined": 6}, CLOCK, "quarantined", r"6 of 100 rows \(6.00%\); .*4 duplicate, 1 spike"),
        (
            {"missing": {"bid": 6}},
            CLOCK,
            "missing bid",
            r"6 of 100 rows \(6.00%\) without bid; required",
        ),
        ({"rows_out": 94}, CLOCK, "rows", r"got 94 usable rows; required: at least 95 \(quality.min_rows\)"),
        (
            {},
            CLOCK + timedelta(hours=3),
            "freshness",
            r"ended 7.1 days before .*: at most 7 days",
        ),
        (
            {"coverage": COVERAGE | {"share": 0.94, "observed": 188}},
            CLOCK,
            "coverage",
            r"188 of 200 bars that the calendar expects \(94.0%\).*: 2024-01 40.0%, 2024-02 90.0%",
        ),
        (
            {"coverage": COVERAGE | {"overlapping": 5}},
            CLOCK,
            "spacing",
            r"5 of 95 bars \(5.26%\) that open before the last has ended; .*bar_interval_minutes",
        ),
        (
            {"coverage": COVERAGE | {"share": None, "lowest_months": []}},
            CLOCK,
            "coverage",
            "lowest months: none",
        ),
    ],
)
def test_beyond_its_limit_each_check_fails_and_says_why(
    change: dict[str, object], clock: datetime, name: str, message: str
) -> None:
    counts = replace(GOOD, **change)
    assert failed(counts, clock) == [name]
    with pytest.raises(QualityError, match=message) as raised:
        raise_for_failed(check_source(counts, QUALITY, clock), "TEST", "report.json")
    assert "report.json" in str(raised.value)


def test_without_any_bar_only_counts_are_checked() -> None:
    nothing = replace(GOOD, rows_in=0, rows_out=0, rows_quarantined=0, missing={}, coverage={}, data_end=None)
    assert failed(nothing, None) == ["rows"]
