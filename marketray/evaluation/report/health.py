"""Whether the model meets the world it will serve: drift of its features, and speed of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.report.markup import (
    Markup,
    Row,
    count,
    details,
    facts,
    fixed,
    note,
    percent,
    section,
    table,
)

__all__ = ["drift", "latency"]

_SHOWN = 10


def drift(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Share of drifted columns, train against OOT, and the ones that moved most."""
    share = f"{percent(value['share'], 1)} % ({count(value['drifted'])} of {count(value['columns'])} columns)"
    pairs = [("drifted", share), ("a column counts as drifted from", fixed(value.get("threshold"), 2))]
    rows: list[Row] = [
        ("", [str(f["feature"]), fixed(f["score"], 4), "yes" if f["drifted"] else "no"])
        for f in value.get("features") or ()
    ]
    head = ["feature", "distance", "drifted"]
    shown = table("The columns that moved most", head, rows[:_SHOWN]) if rows else ""
    if rest := rows[_SHOWN:]:
        shown += details(f"{len(rest)} more", table("Further columns", head, rest))
    text = "Each column on OOT against train. Drift says that the inputs changed, not that the skill did."
    return section("drift", "Drift of the features", note(text), _method(value), facts(pairs), shown)


def _method(value: Mapping[str, Any]) -> str:
    """How the columns were compared, and on how many rows."""
    if not value.get("method"):
        return ""
    rows = value.get("rows") or {}
    sizes = f" {count(rows.get('reference'))} rows of train against {count(rows.get('current'))} of OOT."
    return note(f"{value['method']}.{sizes if rows else ''}")


def latency(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Time of one row through the model."""
    pairs = [
        ("median", f"{fixed(value['p50_ms'], 3)} ms"),
        ("99th percentile", f"{fixed(value['p99_ms'], 3)} ms"),
        ("rows timed", count(value["rows"])),
    ]
    text = "One row through the model itself, one at a time; without the network and the features."
    return section("latency", "Latency", note(text), facts(pairs))
