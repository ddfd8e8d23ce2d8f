"""Where the bar stands in its session and in the day, and what the session has done so far.

What a session has done so far needs all its bars, and a session lasts at most a day: the lookback is
the number of bars of a day. Bars outside all sessions have null here. Daily bars stand nowhere in a
session and at the same hour of every day: of this group they have only the time since the bar before.
"""

from __future__ import annotations

import math

import polars as pl

from marketray.bars import DAY_MINUTES
from marketray.features.definition import Feature

__all__ = ["session", "session_columns"]

_GROUP = "session"
_EDGE_MINUTES = 30
_OUTSIDE = "null outside sessions"


def session(interval_minutes: int) -> list[Feature]:
    """All session features for bars of `interval_minutes`."""
    if interval_minutes >= DAY_MINUTES:
        return [_since_previous_bar()]
    day = math.ceil(DAY_MINUTES / interval_minutes)
    return [*_clock(), _since_previous_bar(), *_progress(), *_day(), *_since_open(day), *_range_so_far(day)]


def session_columns() -> dict[str, pl.Expr]:
    """Shared columns: the session's highest high and lowest low so far."""
    inside = pl.when(pl.col("_session").is_not_null())
    return {
        "_session_high": inside.then(pl.col("high").cum_max().over("_session")),
        "_session_low": inside.then(pl.col("low").cum_min().over("_session")),
    }


def _clock() -> list[Feature]:
    decision = pl.col("_decision_at")
    pairs = [
        (
            "minutes_since_open",
            decision - pl.col("_open_at"),
            "decision_at - session open; a session is cut at the market's declared breaks",
        ),
        ("minutes_to_close", pl.col("_close_at") - decision, "session close - decision_at"),
    ]
    return [
        Feature(
            name=name,
            group=_GROUP,
            lookback=1,
            expression=span.dt.total_microseconds() / 60e6,
            formula=formula,
            source="exchange calendar",
            unit="minutes",
            exact=True,
            null_policy=_OUTSIDE,
        )
        for name, span, formula in pairs
    ]


def _since_previous_bar() -> Feature:
    return Feature(
        name="minutes_since_previous_bar",
        group=_GROUP,
        lookback=2,
        expression=pl.col("time").diff().dt.total_microseconds() / 60e6,
        formula="time - time of the bar before, over breaks and missing minutes alike",
        source="bar times",
        unit="minutes",
        exact=True,
    )


def _progress() -> list[Feature]:
    since, left = pl.col("minutes_since_open"), pl.col("minutes_to_close")
    edge = _EDGE_MINUTES
    parts = [
        ("session_progress", since / (since + left), "elapsed / length of the session", "share, 0 to 1"),
        (f"is_session_open_{edge}", since <= edge, f"1 in the session's first {edge} minutes", "0 or 1"),
        (f"is_session_close_{edge}", left < edge, f"1 in the session's last {edge} minutes", "0 or 1"),
    ]
    return [
        Feature(
            name=name,
            group=_GROUP,
            lookback=1,
            expression=value.cast(pl.Float64),
            formula=f"{formula}, by decision_at",
            source="exchange calendar",
            unit=unit,
            exact=True,
            null_policy=_OUTSIDE,
        )
        for name, value, formula, unit in parts
    ]


def _day() -> list[Feature]:
    decision = pl.col("_decision_at")
    angle = (decision.dt.hour().cast(pl.Float64) + decision.dt.minute() / 60) * (2 * math.pi / 24)
    return [
        Feature(
            name=f"hour_{wave}",
            group=_GROUP,
            lookback=1,
            expression=expression,
            formula=f"{wave}(2 pi h / 24), h = hours since midnight UTC at decision_at",
            source="cyclic encoding",
            unit="-1 to 1",
            exact=True,
        )
        for wave, expression in (("sin", angle.sin()), ("cos", angle.cos()))
    ]


def _since_open(day: int) -> list[Feature]:
    first = pl.col("open").first().over("_session")
    traded, volume = (pl.col(name).cum_sum().over("_session") for name in ("_traded", "volume"))
    inside = pl.col("_session").is_not_null()
    return [
        Feature(
            name="return_since_open",
            group=_GROUP,
            lookback=day,
            expression=pl.when(inside).then(pl.col("close") / first - 1),
            formula="C / open of the session's first bar - 1",
            source="session return",
            exact=True,
            null_policy=_OUTSIDE,
        ),
        Feature(
            name="vwap_distance_session",
            group=_GROUP,
            lookback=day,
            expression=pl.when(inside & (volume > 0)).then(pl.col("close") / (traded / volume) - 1),
            formula="C / VWAP - 1, VWAP = sum of V (H + L + C) / 3 over sum of V since the session's open",
            source="volume-weighted average price",
            inputs=("volume",),
            null_policy=f"{_OUTSIDE} and before the session's first trade",
        ),
    ]


def _range_so_far(day: int) -> list[Feature]:
    close, high, low = pl.col("close"), pl.col("_session_high"), pl.col("_session_low")
    position = pl.when(high > low).then((close - low) / (high - low)).when(high == low).then(0.5)
    parts = [
        ("return_from_session_high", close / high - 1, "C / max H since the session's open - 1", "fraction"),
        ("return_from_session_low", close / low - 1, "C / min L since the session's open - 1", "fraction"),
        (
            "session_range_position",
            position,
            "(C - min L) / (max H - min L) since the session's open; 0.5 where the range is 0",
            "share of the range",
        ),
    ]
    return [
        Feature(name, _GROUP, day, value, formula, "session range", unit, exact=True, null_policy=_OUTSIDE)
        for name, value, formula, unit in parts
    ]
