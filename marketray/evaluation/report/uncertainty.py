"""Whether the stated uncertainty holds: coverage and width of intervals, reliability of probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from marketray.evaluation.report.markup import (
    Markup,
    Row,
    between,
    count,
    details,
    fixed,
    note,
    percent,
    section,
    side_by_side,
    table,
)
from marketray.evaluation.report.names import LABELS, READING_ORDER
from marketray.evaluation.report.plot import Axis, Plot, linear_axis, span_cell

__all__ = ["intervals", "reliability"]

_COVERAGE_AXIS = Axis(0.6, 1.0)
_TARGET = 0.8
_GROUPS = {"by_hour": "hour of the session", "by_volatility": "volatility"}

Parts = Sequence[Mapping[str, Any]]


def intervals(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Coverage, width and scores by split and level, and coverage by hour and volatility."""
    parts: list[str] = [note(str(value["method"]))] if value.get("method") else []
    parts.append(
        note(
            "An interval is right when it covers as often as it says and no wider than need be. Winkler and "
            "pinball scores: smaller is better; the constant-width interval is the rival."
        )
    )
    rows = [
        _level(LABELS[split], level, figures)
        for split in READING_ORDER
        if split in value
        for level, figures in sorted(value[split]["levels"].items(), key=lambda item: float(item[0]))
    ]
    head = ("split and level", "coverage, %", "off by, points", "mean width, %", "Winkler, %", "constant")
    parts.append(table("Intervals", [*head, "pinball, %", "constant", "infinite, %"], rows))
    for split in (name for name in READING_ORDER if name in value):
        groups = [(title, value[split][key]) for key, title in _GROUPS.items() if value[split].get(key)]
        if groups:
            parts += _coverage_by_group(LABELS[split], groups)
    return section("intervals", "Prediction intervals", *parts)


def _coverage_by_group(split: str, groups: Sequence[tuple[str, Parts]]) -> list[Markup]:
    """The range of coverage over each kind of group in a sentence, and the numbers folded away."""
    ranges = []
    for title, parts in groups:
        known = [part["coverage_80"] for part in parts if part["coverage_80"] is not None]
        if known:
            ranges.append(f"{between(min(known), max(known), 1, scale=100)} % by {title}")
    caption = f"{split}: coverage of the 80 % interval by"
    tables = [_parts_table(f"{caption} {title}", parts) for title, parts in groups]
    said = [note(f"{split}: the 80 % interval covers {', '.join(ranges)}.")] if ranges else []
    return [*said, details(f"{split}: coverage by group", *tables)]


def _level(split: str, level: str, figures: Mapping[str, Any]) -> Row:
    coverage, target = figures["coverage"], figures["target"]
    cells = [
        f"{split}, {level}\u00a0%",
        percent(coverage, 2),
        percent(None if coverage is None else coverage - target, 2),
        fixed(figures["mean_width_pct"], 4),
        fixed(figures["winkler_pct"], 4),
        fixed(figures["constant_winkler_pct"], 4),
        fixed(figures["pinball_pct"], 5),
        fixed(figures["constant_pinball_pct"], 5),
        percent(figures["infinite_share"], 3),
    ]
    return "", cells


def _parts_table(caption: str, parts: Parts) -> Markup:
    rows: list[Row] = [
        (
            "",
            [
                str(part["name"]),
                count(part["n"]),
                percent(part["coverage_80"], 1),
                span_cell(_COVERAGE_AXIS, None, part["coverage_80"], None, _TARGET),
            ],
        )
        for part in parts
    ]
    return table(caption, ["", "rows", "coverage, %", "60 to 100 %, rule at 80 %"], rows)


def reliability(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Stated probability of a rise against the share that rose."""
    parts: list[str] = [
        note(
            "On the dotted line a stated probability comes true as often as it says. Where there is no "
            "directional skill the calibrated probabilities stay near 50 %."
        )
    ]
    splits = [name for name in READING_ORDER if name in value]
    filled = {split: [b for b in value[split]["probability_up"] if b["n"]] for split in splits}
    known = [b[key] for bins in filled.values() for b in bins for key in ("mean_probability", "observed")]
    reach = max([1.0, *(abs(100 * share - 50) for share in known)])
    scale = linear_axis([50 - reach, 50 + reach], "")
    parts.append(side_by_side(_diagram(split, bins, scale) for split, bins in filled.items()))
    parts += [details(f"{LABELS[split]}: numbers", _bins(split, bins)) for split, bins in filled.items()]
    rows = [
        ("", [LABELS[s], *(fixed(value[s].get(k), 5) for k in ("brier", "brier_base", "ece"))])
        for s in splits
    ]
    head = ["split", "Brier score", "Brier score of the base rate", "expected calibration error"]
    parts.append(table("Scores of the probability of a rise, smaller is better", head, rows))
    return section("reliability", "Reliability of the probability of a rise", *parts)


def _diagram(split: str, bins: Sequence[Mapping[str, Any]], scale: Axis) -> Markup:
    x = replace(scale, title="stated probability of a rise, %")
    y = replace(scale, title="share that rose, %")
    plot = Plot(f"{LABELS[split]}: share that rose by stated probability", x, y, height=15)
    ends = (scale.low, scale.high)
    plot.span(ends, ends, "rule dashed", legend="stated = observed")
    for b in bins:
        stated, rose = 100 * b["mean_probability"], 100 * b["observed"]
        text = f"stated {stated:.1f} %, rose {rose:.1f} % of {count(b['n'])} rows"
        plot.dot(stated, rose, f"s-{split}", title=text)
    plot.key(f"dot s-{split}", LABELS[split])
    return plot.markup()


def _bins(split: str, bins: Sequence[Mapping[str, Any]]) -> Markup:
    rows: list[Row] = []
    for b in bins:
        shares = (percent(b[key], 2) for key in ("mean_probability", "observed"))
        rows.append(("", [between(b["low"], b["high"], 2, scale=100), count(b["n"]), *shares]))
    head = ["stated, from to, %", "rows", "mean, %", "rose, %"]
    return table(f"{LABELS[split]}: probability of a rise", head, rows)
