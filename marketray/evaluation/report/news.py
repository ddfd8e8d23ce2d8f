"""Every family with and without the news."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.outcome import ablation_notes
from marketray.evaluation.report.markup import (
    Markup,
    Row,
    fixed,
    note,
    p_text,
    percent,
    section,
    table,
    words,
)
from marketray.evaluation.report.names import LABELS

__all__ = ["ablation"]

_HEAD = (
    "family and rows",
    "RMSE with, %",
    "without",
    "R² with, %",
    "without",
    "added, %",
    "p-value of better",
)


def ablation(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Errors and skill of each pair; see `marketray.evaluation.ablation.ablation`."""
    lines: list[Row] = []
    for row in value["families"]:
        for split, pair in sorted(row["splits"].items()):
            cells = [
                f"{words(row['family'])}, {LABELS[split]}",
                *(fixed(pair["rmse_pct"][key], 5) for key in ("with", "without")),
                *(percent(pair["r2_oos"][key]) for key in ("with", "without")),
                percent(pair["r2_difference"]),
                p_text(pair["p_value"]),
            ]
            lines.append(("", cells))
    notes = [note(text) for text in ablation_notes(value)]
    return section("ablation", "With and without the news", *notes, table("News", _HEAD, lines))
