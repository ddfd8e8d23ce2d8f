"""Which features the models use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.report.markup import (
    Markup,
    Row,
    details,
    heading,
    note,
    percent,
    section,
    table,
    words,
)
from marketray.evaluation.report.plot import share_bar

__all__ = ["importance"]

_SHOWN = 20

_NOTE = (
    "Share of the sum of mean absolute contributions, from the models themselves, on training rows of each "
    "fold. A large share says that a model uses a feature, not that the feature predicts."
)


def importance(value: Mapping[str, Any], report: Mapping[str, Any]) -> Markup:
    """Mean share by feature, and its range over the folds; the selected family is open."""
    selected = report["selection"]["selected_model"]
    families = sorted(name for name, part in value.items() if part.get("features"))
    families.sort(key=lambda name: name != selected)
    parts: list[str] = [note(_NOTE)]
    for family in families:
        found = _table(family, value[family])
        parts += [heading(words(family)), found] if family == selected else [details(words(family), found)]
    return section("importance", "Feature importance", *parts)


def _table(family: str, part: Mapping[str, Any]) -> Markup:
    features = part["features"]
    folds = [fold["shares"] for fold in part.get("folds") or ()]
    top = max((f["share"] for f in features), default=0.0) or 1.0
    rows: list[Row] = []
    for feature in features[:_SHOWN]:
        name, share = feature["feature"], feature["share"]
        own = [100 * shares.get(name, 0.0) for shares in folds]
        spread = f"{min(own):.2f} to {max(own):.2f}" if own else ""
        rows.append(("", [name, share_bar(share / top), percent(share, 2), spread]))
    rest = features[_SHOWN:]
    if rest:
        total = sum(f["share"] for f in rest)
        rows.append(
            (
                "baseline",
                [f"{len(rest)} others (in report.json)", share_bar(total / top), percent(total, 2), ""],
            )
        )
    return table(
        f"{words(family)}: mean share by feature", ["feature", "", "share, %", "over the folds"], rows
    )
