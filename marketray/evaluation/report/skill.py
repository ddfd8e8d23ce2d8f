"""Models and naive forecasts side by side, split by split, skill first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    between,
    count,
    fixed,
    heading,
    note,
    p_text,
    percent,
    section,
    table,
    words,
)
from marketray.evaluation.report.names import LABELS, READING_ORDER
from marketray.evaluation.report.plot import Axis, linear_axis, span_cell
from marketray.evaluation.report.verdict import scaled_test

__all__ = ["skill"]

Figures = Mapping[str, Any]
Column = tuple[str, Callable[[Figures], str]]
"""Head of a column, and its cell of one forecast; a column without any known cell is left out."""


_MEANING = {
    "oot": "out of time, kept apart until the gate opened them; the verdict rests on these rows",
    "oot2": "the last rows of all, opened only by this report; nothing was chosen on them",
    "test": "the families were ranked on these rows, so the winner's figures are a little too good",
    "validation": "out-of-fold; the search chose on these rows among all trials, so they flatter most",
}

_NOTE = (
    "R² over the zero forecast, 1 − MSE / MSE of zero; above 0 is skill. The naive forecasts stand below the "
    "models. p-values: one-sided Diebold–Mariano test of being better than zero, robust to overlapping "
    "labels; only the selected model's on OOT was asked for in advance, the others are for reading."
)


_SCALED = (
    "The verdict's p-value is of errors in units of the volatility forecast at the decision; those of the "
    "tables are of plain squared errors."
)


def skill(report: Mapping[str, Any]) -> Markup:
    """One table a split, the rows that nothing was chosen on first."""
    alpha = report["selection"]["evidence"]["alpha"]
    splits = [name for name in READING_ORDER if name in report["figures"]]
    parts = [note(_NOTE), note(_units(report["task"]))]
    if scaled_test(report["selection"]["evidence"]):
        parts.append(note(_SCALED))
    for name in splits:
        parts += [
            heading(f"{LABELS[name]}: {count(_rows(report, name))} rows"),
            *_tables(report, name, alpha),
        ]
    return section("skill", "Skill over zero", *parts)


def _units(task: str) -> str:
    errors = "percent" if task == "regression" else "percentage points of probability"
    return (
        f"RMSE and MAE in {errors}. Hit rate: share of right directions, percent. IC: correlation of "
        "forecast and label. Slope: of the label on the forecast; 1 is a forecast of the right size. "
        "Intervals are 95 %; – is not known."
    )


def _rows(report: Mapping[str, Any], split: str) -> int:
    return int(report["figures"][split]["zero"]["n"])


def _tables(report: Mapping[str, Any], split: str, alpha: float) -> list[Markup]:
    """Skill, then errors and direction, of every forecast of one split."""
    found = report["figures"][split]
    models = [found[row["model"]] for row in report["comparison"] if row["kind"] == "model"]
    return [
        _table(report, split, _MEANING[split], _skill_columns(models, alpha)),
        _table(report, split, "errors and direction on the same rows", _error_columns()),
    ]


def _table(report: Mapping[str, Any], split: str, caption: str, columns: Sequence[Column]) -> Markup:
    found, selected = report["figures"][split], report["selection"]["selected_model"]
    known = [c for c in columns if any(c[1](figures) not in ("", UNKNOWN) for figures in found.values())]
    lines: list[Row] = []
    for row in report["comparison"]:
        name, kind = row["model"], row["kind"]
        style, title = kind, words(name)
        if name == selected:
            style, title = f"selected {kind}", f"{words(name)} (selected)"
        lines.append((style, [title, *(cell(found[name]) for _, cell in known)]))
    return table(f"{LABELS[split]}: {caption}", ["forecast", *(head for head, _ in known)], lines)


def _skill_columns(models: Sequence[Figures], alpha: float) -> list[Column]:
    axis = _skill_axis(models)
    return [
        ("R² over zero, %", lambda f: percent(f["r2_oos"]["zero"])),
        ("95 % interval", lambda f: between(*_ends(f, "r2_interval"), 3, scale=100)),
        ("worse | better", lambda f: _drawn(f, axis)),
        (f"p-value (level {alpha:.3g})", lambda f: p_text(f["p_value"])),
        ("detectable R², %", lambda f: percent(f["minimum_detectable_r2"], 2)),
        ("R² over training mean, %", lambda f: percent(f["r2_oos"].get("training_mean"))),
        ("R² over last return, %", lambda f: percent(f["r2_oos"].get("last_return"))),
    ]


def _error_columns() -> list[Column]:
    return [
        ("RMSE", lambda f: fixed(f["rmse_pct"], 5)),
        ("MAE", lambda f: fixed(f["mae_pct"], 5)),
        ("hit rate, %", lambda f: _with_ends(f.get("hit_rate"), "rate", 1, scale=100)),
        ("balanced accuracy, %", lambda f: _with_ends(f.get("balanced_accuracy"), "rate", 1, scale=100)),
        ("IC", lambda f: _with_ends(f.get("information_coefficient"), "pearson", 3)),
        ("rank IC", lambda f: fixed((f.get("information_coefficient") or {}).get("spearman"), 3)),
        ("slope", lambda f: _slope(f.get("calibration"))),
    ]


def _skill_axis(models: Sequence[Figures]) -> Axis:
    """A scale that shows the models; a naive forecast far off says so in words."""
    known = [v for f in models for v in (f["r2_oos"]["zero"], *_ends(f, "r2_interval")) if v is not None]
    reach = max(map(abs, known), default=1.0)
    return linear_axis([-reach / 4, reach / 4, *known], "")


def _drawn(figures: Figures, axis: Axis) -> str:
    low, high = _ends(figures, "r2_interval")
    return span_cell(axis, low, figures["r2_oos"]["zero"], high, 0.0)


def _ends(figures: Figures, key: str) -> tuple[float | None, float | None]:
    value = figures.get(key) or {}
    return value.get("low"), value.get("high")


def _with_ends(value: Figures | None, key: str, digits: int, *, scale: float = 1.0) -> str:
    """``52.10 (50.90 to 53.30)``."""
    if value is None or value.get(key) is None:
        return UNKNOWN
    text = fixed(value[key], digits, scale=scale)
    ends = between(value.get("low"), value.get("high"), digits, scale=scale)
    return text if ends == UNKNOWN else f"{text} ({ends})"


def _slope(calibration: Figures | None) -> str:
    """Slope of label on forecast; 1 where the forecast has the right size, 0 where it says nothing."""
    if calibration is None or calibration.get("slope") is None:
        return UNKNOWN
    text = fixed(calibration["slope"], 1)
    ends = between(calibration.get("slope_low"), calibration.get("slope_high"), 1)
    return text if ends == UNKNOWN else f"{text} ({ends})"
