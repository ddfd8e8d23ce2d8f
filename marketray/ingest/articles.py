"""When an article may be used: the known-time rule for news.

``available_at = max(published_at, collected_at) + latency``; an article is usable at a decision when
``available_at < decision_at`` (strictly). A stamp that is coarser than a second counts from the end of
the span it names, since the article can have appeared at any moment of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from marketray.errors import DataError, SettingsError

__all__ = [
    "CLOCK_TOLERANCE",
    "DEFAULT_LATENCY_SECONDS",
    "Precision",
    "available_at",
    "available_at_expr",
    "earliest_expr",
]

Precision = Literal["second", "minute", "hour", "day"]
"""What `published_at` is exact to."""

DEFAULT_LATENCY_SECONDS = 60.0
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far a source's clock may be ahead of ours: an article stamped later than that is not true."""

_LAST_ZONE_ON_EARTH = "Etc/GMT+12"  # POSIX sign: this is UTC-12, where a day ends last


def available_at_expr(
    published_at: pl.Expr,
    collected_at: pl.Expr,
    precision: pl.Expr,
    *,
    day_zone: str | None = None,
    latency_seconds: float = DEFAULT_LATENCY_SECONDS,
) -> pl.Expr:
    """Earliest time at which each article is known, as a Polars expression.

    Parameters
    ----------
    published_at, collected_at:
        Datetime us UTC. For precision `day` the date as the source wrote it is the UTC date of
        `published_at`; the time of day is ignored.
    precision:
        String, one of `second`, `minute`, `hour`, `day`.
    day_zone:
        IANA zone in which the source counts its days; None: UTC-12, the zone where a day ends last.
    latency_seconds:
        Time from collection to use, at least 0.

    Returns
    -------
    pl.Expr
        Datetime us UTC. Null where a time is null or the precision is unknown: such a row has no known
        time and must be quarantined, not guessed.

    Raises
    ------
    SettingsError
        `day_zone` is no IANA zone, or `latency_seconds` is negative.
    """
    if latency_seconds < 0:
        msg = f"latency_seconds={latency_seconds}; required: at least 0"
        raise SettingsError(msg, hint="an article cannot be used before it was collected")
    zone = day_zone if day_zone is not None else _LAST_ZONE_ON_EARTH
    try:
        ZoneInfo(zone)
    except (ValueError, ZoneInfoNotFoundError) as e:
        msg = f"day_zone={day_zone!r} is not an IANA zone"
        raise SettingsError(msg, hint="for example America/New_York or UTC") from e
    ends = {
        "second": published_at,
        "minute": published_at.dt.truncate("1m").dt.offset_by("1m"),
        "hour": published_at.dt.offset_by("1h"),  # an hour of India or Newfoundland ends at half past in UTC
        "day": _end_of_day(published_at, zone),
    }
    known_from = pl.coalesce(pl.when(precision == name).then(end) for name, end in ends.items())
    usable = pl.when(collected_at.is_not_null() & known_from.is_not_null()).then(
        pl.max_horizontal(known_from, collected_at)
    )
    return usable + pl.duration(microseconds=round(latency_seconds * 1e6))


def earliest_expr(published_at: pl.Expr, precision: pl.Expr) -> pl.Expr:
    """Earliest moment that a stamp can mean, Datetime us UTC; null where the precision is unknown.

    An hourly stamp may name the end of its hour, and a day begins first at UTC+14. For the parameters see
    `available_at_expr`.
    """
    starts = {
        "second": published_at,
        "minute": published_at.dt.offset_by("-1m"),
        "hour": published_at.dt.offset_by("-1h"),
        "day": published_at.dt.truncate("1d").dt.offset_by("-14h"),
    }
    return pl.coalesce(pl.when(precision == name).then(start) for name, start in starts.items())


def _end_of_day(published_at: pl.Expr, zone: str) -> pl.Expr:
    midnight = published_at.dt.replace_time_zone(None).dt.truncate("1d").dt.offset_by("1d")
    first, later = (
        t.dt.replace_time_zone(zone, non_existent="null", ambiguous="latest").dt.convert_time_zone("UTC")
        for t in (midnight, midnight.dt.offset_by("1h"))  # a midnight skipped by DST begins at 01:00
    )
    return pl.coalesce(first, later)


def available_at(
    published_at: datetime,
    collected_at: datetime,
    precision: Precision = "second",
    day_zone: str | None = None,
    latency_seconds: float = DEFAULT_LATENCY_SECONDS,
) -> datetime:
    """Earliest time at which one article is known; the same rule as `available_at_expr`.

    Parameters
    ----------
    published_at, collected_at:
        Tz-aware times.
    precision, day_zone, latency_seconds:
        See `available_at_expr`.

    Returns
    -------
    datetime
        Tz-aware UTC, exact to the microsecond.

    Raises
    ------
    DataError
        A time has no zone, or the precision is unknown.
    SettingsError
        `day_zone` or `latency_seconds` is wrong.
    """
    for name, moment in (("published_at", published_at), ("collected_at", collected_at)):
        if moment.tzinfo is None:
            msg = f"{name}={moment.isoformat()} has no time zone; required: a tz-aware time"
            raise DataError(msg, hint="attach the source's zone before asking when the article was known")
    if precision not in get_args(Precision):
        msg = f"precision={precision!r}; required: one of {', '.join(get_args(Precision))}"
        raise DataError(msg, hint="say how exact published_at is; an unknown precision is not guessed")
    kind = pl.Datetime("us", "UTC")
    expression = available_at_expr(
        pl.lit(published_at.astimezone(UTC), kind),
        pl.lit(collected_at.astimezone(UTC), kind),
        pl.lit(precision),
        day_zone=day_zone,
        latency_seconds=latency_seconds,
    )
    result: datetime = pl.select(expression).item()
    return result
