"""The calendar at the decision: day, month, quarter, minute, and the phases of the US equity day."""

from __future__ import annotations

import math

import polars as pl

from marketray.features.definition import Feature

__all__ = ["calendar", "calendar_columns"]

_GROUP = "calendar"
_PHASES = (("premarket", 4 * 60, 9 * 60 + 30), ("regular", 9 * 60 + 30, 16 * 60), ("afterhours", 960, 1200))


def calendar_columns() -> dict[str, pl.Expr]:
    """Shared columns: New York's wall clock at decision_at, and its minute since midnight Monday."""
    local = pl.col("_decision_at").dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    minutes = local.dt.timestamp("us") // 60_000_000
    # the epoch was a Thursday: three days after a Monday
    return {"_new_york_week_minute": (minutes + 3 * 1440) % (7 * 1440)}


def calendar() -> list[Feature]:
    """All calendar features; UTC where nothing else is said."""
    return [*_waves(), *_flags(), *_phases(), *_positions()]


def _at_decision(name: str, value: pl.Expr, formula: str, unit: str) -> Feature:
    return Feature(name, _GROUP, 1, value, formula, "calendar at decision_at, UTC", unit, exact=True)


def _waves() -> list[Feature]:
    at = pl.col("_decision_at").dt
    cycles = [
        ("dow", at.weekday() - 1, 7, "days since Monday"),
        ("month", at.month() - 1, 12, "months since January"),
        ("minute", at.minute(), 60, "minutes since the full hour"),
    ]
    found = []
    for name, count, length, meaning in cycles:
        angle = count.cast(pl.Float64) * (2 * math.pi / length)
        for wave, value in (("sin", angle.sin()), ("cos", angle.cos())):
            formula = f"{wave}(2 pi n / {length}), n = {meaning}"
            found.append(_at_decision(f"{name}_{wave}", value, formula, "-1 to 1"))
    return found


def _flags() -> list[Feature]:
    day = pl.col("_decision_at").dt.weekday()
    return [
        _at_decision(
            f"is_{name.lower()}", (day == number).cast(pl.Float64), f"1 on {name}s, else 0", "0 or 1"
        )
        for name, number in (("Monday", 1), ("Friday", 5))
    ]


def _positions() -> list[Feature]:
    at = pl.col("_decision_at").dt
    share = at.day() / at.days_in_month()
    return [
        _at_decision("quarter", at.quarter().cast(pl.Float64), "quarter of the year", "1 to 4"),
        _at_decision("day_of_month_share", share, "day of the month / days of the month", "share, 0 to 1"),
    ]


def _phases() -> list[Feature]:
    """Hours of US equity trading; the wall clock follows daylight saving time, holidays are not known."""
    minute = pl.col("_new_york_week_minute")
    weekday = minute < 5 * 1440
    found = []
    for name, start, end in _PHASES:
        within = weekday & (minute % 1440).is_between(start, end, closed="left")
        clock = f"{start // 60:02}:{start % 60:02} <= decision_at < {end // 60:02}:{end % 60:02} New York"
        found.append(
            Feature(
                name=f"is_us_{name}",
                group=_GROUP,
                lookback=1,
                expression=within.cast(pl.Float64),
                formula=f"1 where {clock}, Monday to Friday (holidays count as any day), else 0",
                source="hours of NYSE and Nasdaq, calendar at decision_at",
                unit="0 or 1",
                exact=True,
            )
        )
    return found
