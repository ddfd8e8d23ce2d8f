"""``report.html``: one self-contained page, the verdict first. It needs no network, script or other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from marketray.evaluation.report.contribution import importance
from marketray.evaluation.report.curves import Series, actual_by_prediction, cumulative_skill
from marketray.evaluation.report.health import drift, latency
from marketray.evaluation.report.markup import Markup, note, section
from marketray.evaluation.report.news import ablation
from marketray.evaluation.report.provenance import lineage, quality, timeline
from marketray.evaluation.report.regimes import breakdown
from marketray.evaluation.report.searching import significance
from marketray.evaluation.report.skill import skill
from marketray.evaluation.report.trading import backtest
from marketray.evaluation.report.trials import trials
from marketray.evaluation.report.uncertainty import intervals, reliability
from marketray.evaluation.report.verdict import verdict

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["render_report", "write_report"]

Renderer = Callable[[Any, Mapping[str, Any]], Markup]

_SECTIONS: dict[str, tuple[str, Renderer]] = {
    "significance": ("Significance", significance),
    "breakdown": ("By month, hour and volatility", breakdown),
    "intervals": ("Intervals", intervals),
    "reliability": ("Reliability", reliability),
    "backtest": ("Backtest", backtest),
    "importance": ("Feature importance", importance),
    "ablation": ("News", ablation),
    "trials": ("Tuning", trials),
    "drift": ("Drift", drift),
    "latency": ("Latency", latency),
}
"""Sections that a report may lack, by their key in report.json, with their short name; in page order."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SKILL_NOTE = (
    "The end of each line is R² over zero. A line that keeps rising is skill that lasts; one that lives off "
    "a single jump is not."
)
_ACTUAL_NOTE = (
    "Rows in groups of equal size by forecast; bars are 95 % intervals. Without skill the points lie level."
)


def write_report(path: Path, report: Mapping[str, Any], series: Mapping[str, Series]) -> None:
    """Render and store the page, whole or not at all; see `render_report`."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(render_report(report, series), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def render_report(report: Mapping[str, Any], series: Mapping[str, Series]) -> str:
    """The page as text.

    Parameters
    ----------
    report:
        Content of report.json, see `marketray.evaluation.outcome.report_document` and docs/report.md. A
        section that is absent, or that is ``{"missing": reason}``, gets one line that says so.
    series:
        Labels and the selected model's forecasts by split.
    """
    title = f"{report['instrument']}, {report['horizon_minutes']} minutes ahead: {report['run']}"
    shown, absent = _optional(report)
    parts = [verdict(report), skill(report), *_curves(report, series), *shown]
    parts += [timeline(report["selection"]["splits"]), quality(report), lineage(report), *absent]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<link rel='icon' href='data:,'>"
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body>\n"
        f"<header><h1>{escape(title)}</h1>{_contents(report)}</header>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n<footer>Every number of this page is in report.json beside it.</footer></body></html>\n"
    )


def _style() -> str:
    return (files("marketray.evaluation.report") / "report.css").read_text(encoding="utf-8")


def _given(report: Mapping[str, Any], key: str) -> Any:
    """A section's content; the comparison with and without the news lies in the selection."""
    return report["selection"].get(key) if key == "ablation" else report.get(key)


def _absence(value: Any) -> str | None:
    """What is said instead of a section; None where it can be shown."""
    if isinstance(value, Mapping) and "missing" in value:
        return f"not computed: {value['missing']}"
    return None if value else "not computed in this run"


def _optional(report: Mapping[str, Any]) -> tuple[list[Markup], list[Markup]]:
    """The sections that are there, and one that names the others."""
    shown, lines = [], []
    for key, (name, render) in _SECTIONS.items():
        value = _given(report, key)
        absence = _absence(value)
        if absence is None:
            shown.append(render(value, report))
        else:
            lines.append(note(f"{name}: {absence}."))
    return shown, [section("absent", "Not in this report", *lines)] if lines else []


def _curves(report: Mapping[str, Any], series: Mapping[str, Series]) -> list[Markup]:
    parts = [section("over-time", "Skill over time", note(_SKILL_NOTE), cumulative_skill(series))]
    if report["task"] == "regression":
        rows = max(1, report["horizon_minutes"] // report["bar_interval_minutes"])
        groups = actual_by_prediction(series, rows)
        parts.append(section("actual", "Prediction against actual", note(_ACTUAL_NOTE), groups))
    return parts


def _contents(report: Mapping[str, Any]) -> str:
    """Links to the sections of this page."""
    links = [("skill", "Skill"), ("over-time", "Over time")]
    links += [(key, name) for key, (name, _) in _SECTIONS.items() if _absence(_given(report, key)) is None]
    links += [("splits", "Splits"), ("quality", "Data quality"), ("lineage", "Lineage")]
    items = "".join(f"<li><a href='#{key}'>{escape(name)}</a></li>" for key, name in links)
    return f"<nav aria-label='Sections'><ul>{items}</ul></nav>"
