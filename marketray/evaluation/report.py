"""``report.html``: one self-contained page, the verdict first. It needs no network and no other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from marketray.evaluation.charts import (
    LABELS,
    Series,
    actual_by_prediction,
    cumulative_skill,
    split_timeline,
)
from marketray.evaluation.outcome import SPLIT_ORDER, ablation_notes, minus

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Series", "render_report", "write_report"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 62rem; }
h1 { font-size: 1.15rem; margin: 0; color: #555; font-weight: 600; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
.verdict { border-left: 6px solid #E69F00; background: #faf7f0; padding: .8rem 1rem; margin: .8rem 0; }
.verdict.promoted { border-color: #0072B2; background: #f1f6fa; }
.verdict.refused { border-color: #D55E00; background: #fbf3ef; }
.verdict p { margin: .2rem 0; } .verdict .lead { font-size: 1.25rem; font-weight: 600; line-height: 1.35; }
.note { color: #555; font-size: .9rem; margin: .2rem 0 .6rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 2px solid #999; font-weight: 600; }
@media (max-width: 34rem) { table { font-size: .8rem; } th, td { padding: .2rem .3rem; } }
tr.selected td { font-weight: 700; } tr.baseline td { color: #555; }
"""

_NOTES = {
    "skill": "R² over the zero forecast; above 0 is skill. Validation is out-of-fold; OOT was opened by the "
    "gate, OOT2 only by this report.",
    "p_value": "One-sided Diebold–Mariano test against zero, errors robust to overlapping labels; and the "
    "smallest R² that this test finds in 80 % of cases.",
    "actual": "Rows in 20 groups of equal size by forecast; bars are 95 % intervals.",
}


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
        Content of report.json, see `marketray.evaluation.outcome.report_document`.
    series:
        Labels and the selected model's forecasts by split.
    """
    from plotly.offline import get_plotlyjs

    selection = report["selection"]
    title = f"{report['instrument']}, {report['horizon_minutes']} minutes ahead: {report['run']}"
    parts = [f"<h1>{escape(title)}</h1>", _verdict(report), *_tables(report), *_news(report)]
    note = f"{selection['selected_model']}: the end of each line is R² over zero."
    parts += [_head("Skill over time", note), _plot(cumulative_skill(series), "skill")]
    if report["task"] == "regression":
        rows = max(1, report["horizon_minutes"] // report["bar_interval_minutes"])
        parts += [_head("Prediction against actual", _NOTES["actual"])]
        parts += [_plot(actual_by_prediction(series, rows), "actual")]
    parts += [_head("Split"), _plot(split_timeline(selection["splits"]), "timeline"), _splits(selection)]
    parts += [_head("Rows left out"), _dropped(report), _head("Lineage"), _lineage(selection)]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _tables(report: Mapping[str, Any]) -> list[str]:
    unit = "percent" if report["task"] == "regression" else "percentage points of probability"
    errors = f"RMSE and MAE in {unit}; hit rate is the share of right directions, percent."
    return [
        _head("Skill over zero", _NOTES["skill"]),
        _table(report, "r2_oos", lambda v: minus(100 * v, 3), caption="R², %"),
        _head("p-values and detectable skill", _NOTES["p_value"]),
        _table(report, "p_value", lambda v: f"{v:.2g}", baselines=False, caption="p-value"),
        _table(report, "minimum_detectable_r2", _percent, baselines=False, caption="detectable R², %"),
        _head("Errors and hit rate", errors),
        _table(report, "rmse_pct", lambda v: f"{v:.5f}", caption="RMSE"),
        _table(report, "mae_pct", lambda v: f"{v:.5f}", caption="MAE"),
        _table(report, "hit_rate", _percent, caption="hit rate, %"),
    ]


def _news(report: Mapping[str, Any]) -> list[str]:
    """Every family with and without the news; nothing where there are no news features."""
    ablation = report["selection"].get("ablation")
    if ablation is None:
        return []
    head = ["family", "rows", "RMSE with", "without", "R² with, %", "without, %", "added, %", "p-value"]
    lines = []
    for row in ablation["families"]:
        for split, pair in row["splits"].items():
            cells = [row["family"], LABELS[split]]
            cells += [f"{pair['rmse_pct'][key]:.5f}" for key in ("with", "without")]
            skills = (pair["r2_oos"]["with"], pair["r2_oos"]["without"], pair["r2_difference"])
            cells += [minus(100 * value, 3) for value in skills]
            cells.append("–" if pair["p_value"] is None else f"{pair['p_value']:.2g}")
            lines.append(("", cells))
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in ablation_notes(ablation))
    return [_head("With and without the news"), notes, _html_table(head, lines)]


def _percent(value: float) -> str:
    return f"{100 * value:.3f}"


def _head(text: str, note: str = "") -> str:
    return f"<h2>{escape(text)}</h2>" + (f"<p class='note'>{escape(note)}</p>" if note else "")


def _verdict(report: Mapping[str, Any]) -> str:
    evidence = report["selection"]["evidence"]
    reasons = "".join(f"<li>{escape(r)}</li>" for r in evidence["reasons"])
    least = evidence["minimum_detectable_r2"]
    power = ""
    if least is not None:
        rows = f"{evidence['n']:,} rows (worth about {evidence['n_effective']:,.0f} independent ones)"
        found = f"would have found an R² of {100 * least:.2f} % or more in 80 % of cases"
        power = f"<p class='note'>With these {rows} the test {found}.</p>"
    chosen = f"Verdict: {report['verdict']}. Selected: {report['selection']['selected_model']}."
    return (
        f"<section class='verdict {escape(report['verdict'])}'>"
        f"<p class='lead'>{escape(report['verdict_text'])}</p><p>{escape(chosen)}</p>"
        f"{f'<ul>{reasons}</ul>' if reasons else ''}{power}</section>"
    )


def _table(
    report: Mapping[str, Any],
    key: str,
    text: Callable[[float], str],
    *,
    baselines: bool = True,
    caption: str = "model",
) -> str:
    """One figure of every forecast by split."""
    selected = report["selection"]["selected_model"]
    splits = [s for s in SPLIT_ORDER if s in report["figures"]]
    lines = []
    for row in report["comparison"]:
        if row["kind"] == "baseline" and not baselines:
            continue
        style = "selected" if row["model"] == selected else row["kind"]
        cells = [row["model"].replace("_", " ")]
        cells += ["–" if row[key].get(s) is None else text(row[key][s]) for s in splits]
        lines.append((style, cells))
    return _html_table([caption, *(LABELS[s] for s in splits)], lines)


def _splits(selection: Mapping[str, Any]) -> str:
    lines = []
    for name, block in selection["splits"].items():
        dates = [block[k][:16].replace("T", " ") for k in ("first_decision_at", "last_decision_at")]
        lines.append(("", [LABELS[name], f"{block['rows']:,}", *dates, f"{block['gap_rows']:,}"]))
    head = ["split", "rows", "first decision, UTC", "last decision, UTC", "gap rows after"]
    return _html_table(head, lines)


def _dropped(report: Mapping[str, Any]) -> str:
    lines = [("", [str(k).replace("_", " "), f"{v:,}"]) for k, v in report["dropped"].items()]
    return _html_table(["reason", "rows"], lines)


def _lineage(selection: Mapping[str, Any]) -> str:
    opened = ", ".join(f"{LABELS[k]} {v}" for k, v in selection["vault_openings"].items())
    version = f"{selection['selected_model_name']} version {selection['model_version']}"
    lines = [
        ("", ["registered", version]),
        ("", ["alias", selection["alias"] or "none"]),
        ("", ["vault openings", opened]),
        ("", ["selection key", selection["key"]]),
    ]
    return _html_table(["", ""], lines)


def _html_table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    header = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        f"<tr class='{escape(style)}'>{''.join(f'<td>{escape(c)}</td>' for c in cells)}</tr>"
        for style, cells in lines
    )
    return f"<div class='scroll'><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


def _plot(figure: Any, name: str) -> str:
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{name}"))
