"""Whether the model meets the world it will serve: drift of its features, and speed of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.report.markup import (
    Markup,
    Row,
    count,
    facts,
    fixed,
    note,
    p_text,
    percent,
    section,
    table,
)

__all__ = ["drift", "latency"]


def drift(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Share of drifted columns, train against OOT, and the most drifted ones."""
    share = f"{percent(value['share'], 1)} % ({count(value['drifted'])} of {count(value['columns'])} columns)"
    limit = value.get("threshold")
    pairs = [("drifted", share)]
    if limit is not None:
        pairs.append(("gate's limit", f"{percent(limit, 1)} %"))
    rows = [_feature(f) for f in value.get("features") or ()]
    head = ["feature", "test", "statistic or score", "p-value", "drifted"]
    shown = table("The most drifted columns", head, rows, prose=("test",)) if rows else ""
    text = "Each column on OOT against train. Drift says that the inputs changed, not that the skill did."
    return section("drift", "Drift of the features", note(text), facts(pairs), shown)


def _feature(feature: Mapping[str, Any]) -> Row:
    score = feature.get("score")
    cells = [
        str(feature["feature"]),
        str(feature.get("method") or feature.get("statistic") or ""),
        fixed(score, 4),
        p_text(feature.get("p_value")),
        "yes" if feature["drifted"] else "no",
    ]
    return "", cells


def latency(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Time of one row through the model."""
    pairs = [
        ("median", f"{fixed(value['p50_ms'], 3)} ms"),
        ("99th percentile", f"{fixed(value['p99_ms'], 3)} ms"),
        ("rows timed", count(value["rows"])),
    ]
    text = "One row through the model itself, one at a time; without the network and the features."
    return section("latency", "Latency", note(text), facts(pairs))
