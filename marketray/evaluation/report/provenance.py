"""Where the numbers come from: the splits in time, the rows left out, what made the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    count,
    details,
    fixed,
    note,
    section,
    stamp,
    table,
    words,
)
from marketray.evaluation.report.names import LABELS
from marketray.evaluation.report.plot import Axis, Plot, time_axis

__all__ = ["lineage", "quality", "timeline"]

Splits = Mapping[str, Mapping[str, Any]]


def timeline(splits: Splits) -> Markup:
    """The splits one below the other, and the gaps between them."""
    spans = {
        name: tuple(datetime.fromisoformat(block[k]) for k in ("first_decision_at", "last_decision_at"))
        for name, block in splits.items()
    }
    names = sorted(spans, key=lambda name: spans[name][0])
    x = time_axis(min(s[0] for s in spans.values()), max(s[1] for s in spans.values()), "decision time, UTC")
    rows = tuple((float(i), LABELS[name]) for i, name in enumerate(names))
    plot = Plot("The splits in time order, with the gaps between them", x, Axis(len(names) - 0.5, -0.5, rows))
    plot.height = 2.2 * len(names)
    for i, name in enumerate(names):
        first, last = spans[name]
        text = f"{LABELS[name]}: {count(splits[name]['rows'])} rows, {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        plot.box((first.timestamp(), last.timestamp()), (i + 0.32, i - 0.32), f"s-{name}", title=text)
    for i, (name, following) in enumerate(pairwise(names)):
        gap = splits[name]["gap_rows"]
        at = (spans[name][1].timestamp(), spans[following][0].timestamp())
        text = f"gap of {count(gap)} rows between {LABELS[name]} and {LABELS[following]}"
        plot.box(at, (i + 1.5, i - 0.5), "gap", title=text)
    text = (
        "Shaded: gaps of the label's horizon and an embargo, whose rows belong to no split, so that no label "
        "of a split reaches into the next."
    )
    return section("splits", "Splits", note(text), plot.markup(), _split_table(names, splits))


def _split_table(names: Sequence[str], splits: Splits) -> Markup:
    rows: list[Row] = [
        (
            "",
            [
                LABELS[name],
                count(splits[name]["rows"]),
                stamp(splits[name]["first_decision_at"]),
                stamp(splits[name]["last_decision_at"]),
                count(splits[name]["gap_rows"]),
            ],
        )
        for name in names
    ]
    head = ["split", "rows", "first decision, UTC", "last decision, UTC", "gap rows after"]
    return table("Splits in time order", head, rows)


def quality(report: Mapping[str, Any]) -> Markup:
    """Rows kept and left out, and whether those left out were calmer or wilder."""
    labels, parts = report.get("labels") or {}, []
    if labels:
        rows: list[Row] = [
            ("", ["kept", count(labels["kept"]), fixed(labels["kept_label_sd"], 4, scale=100)]),
            (
                "",
                [
                    "left out, with a later close",
                    count(labels["dropped_with_a_close"]),
                    fixed(labels["dropped_label_sd"], 4, scale=100),
                ],
            ),
        ]
        text = (
            f"{count(labels['kept'])} of {count(labels['rows'])} bars have a label. Beside the labels' "
            "standard deviation stands that of the returns which the other bars would have had."
        )
        parts = [note(text), table("Labels", ["bars", "number", "standard deviation, %"], rows)]
    dropped: list[Row] = [("", [words(k), count(v)]) for k, v in sorted(report["dropped"].items())]
    parts.append(table("Rows left out of the dataset", ["reason", "rows"], dropped))
    if stages := (report.get("quality") or {}).get("stages"):
        keys = ("rows_in", "rows_out", "rows_quarantined", "rows_dropped")
        lines: list[Row] = [("", [words(s["stage"]), *(count(s.get(key)) for key in keys)]) for s in stages]
        parts.append(table("Rows of every stage", ["stage", "in", "out", "quarantined", "left out"], lines))
    if refused := (report.get("quality") or {}).get("quarantined"):
        held: list[Row] = [("", [words(r["stage"]), words(r["reason"]), count(r["rows"])]) for r in refused]
        parts.append(table("In quarantine", ["stage", "reason", "rows"], held))
    return section("quality", "Data quality", *parts)


def lineage(report: Mapping[str, Any]) -> Markup:
    """What must be the same to get these numbers again."""
    selection, given = report["selection"], dict(report.get("lineage") or {})
    settings = given.pop("settings", None)
    rows: list[Row] = [
        ("", ["registered", f"{selection['selected_model_name']} version {selection['model_version']}"]),
        ("", ["alias", selection["alias"] or "none"]),
        ("", ["vault openings", _openings(selection["vault_openings"])]),
        ("", ["selection key", selection["key"]]),
        *(("", [words(k), UNKNOWN if v is None else str(v)]) for k, v in sorted(given.items())),
    ]
    parts = [table("Lineage", ["what", "value"], rows, prose=("value",))]
    if settings:
        flat: list[Row] = [("", pair) for pair in _flat(settings)]
        parts.append(
            details("settings", table("Settings of this run", ["setting", "value"], flat, prose=("value",)))
        )
    return section("lineage", "Lineage", *parts)


def _openings(openings: Mapping[str, int]) -> str:
    return ", ".join(f"{LABELS[name]} {number}" for name, number in sorted(openings.items()))


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names."""
    for key, value in sorted(settings.items()):
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, UNKNOWN if value is None else str(value)
