"""Where the selected model has skill and where not: by month, hour of session and volatility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    between,
    count,
    details,
    fixed,
    note,
    percent,
    section,
    table,
)
from marketray.evaluation.report.names import LABELS, READING_ORDER
from marketray.evaluation.report.plot import Axis, linear_axis, span_cell

__all__ = ["breakdown"]

_KINDS = {"month": "month", "hour_of_session": "hour of the session", "volatility": "volatility"}
_HEAD = (
    "rows",
    "R² over zero, %",
    "worse | better",
    "RMSE, %",
    "RMSE of zero, %",
    "hit rate, %",
    "95 % interval",
    "80 % interval covers, %",
)
_NOTE = (
    "Each row is a part of a split. Among many parts some look good or bad by chance: these figures say "
    "where to look, not what to trade. Months are UTC, hour 00 is the session's first, and thirds of the "
    "volatility forecast are cut on training rows. Too few: the rows overlap too much for an interval."
)


def breakdown(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Three tables a split; the OOT ones are open."""
    parts: list[str] = [note(_NOTE)]
    for split in (name for name in READING_ORDER if name in value):
        tables = [_table(split, kind, value[split][kind]) for kind in _KINDS if value[split].get(kind)]
        parts += tables if split == "oot" else [details(LABELS[split], *tables)]
    return section("breakdown", "By month, hour and volatility", *parts)


def _table(split: str, kind: str, parts: Sequence[Mapping[str, Any]]) -> Markup:
    known = [p["r2_oos"] for p in parts if p.get("r2_oos") is not None]
    axis = linear_axis([0.0, *known], "")
    rows = [_row(part, axis) for part in parts]
    return table(f"{LABELS[split]} by {_KINDS[kind]}", [_KINDS[kind], *_HEAD], rows)


def _row(part: Mapping[str, Any], axis: Axis) -> Row:
    hits = part.get("hit_rate") or {}
    cells = [
        str(part["name"]),
        count(part["n"]),
        percent(part.get("r2_oos"), 2),
        span_cell(axis, None, part.get("r2_oos"), None, 0.0),
        fixed(part.get("rmse_pct"), 4),
        fixed(part.get("zero_rmse_pct"), 4),
        percent(hits.get("rate"), 1),
        _interval(hits),
        percent(part.get("coverage_80"), 1),
    ]
    return "", cells


def _interval(hits: Mapping[str, Any]) -> str:
    ends = between(hits.get("low"), hits.get("high"), 1, scale=100)
    return "too few" if ends == UNKNOWN and hits.get("rate") is not None else ends
