"""What the command line prints: plain values for ``--json``, tables for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from marketray.pipeline import PipelineResult
    from marketray.settings import Settings

__all__ = ["ablation_table", "as_plain", "evaluation_table", "pipeline_summary", "show", "show_pipeline"]


def as_plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses and models become objects, times ISO 8601, NaN null.

    Raises
    ------
    TypeError
        A value of a type that has no plain form.
    """
    if isinstance(value, BaseModel):
        return as_plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): as_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(v) for v in value]
    if isinstance(value, Enum):
        return as_plain(value.value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # NumPy scalars
        return as_plain(value.item())
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, bool | int | str):
        return value
    msg = f"{type(value).__name__} has no plain form"
    raise TypeError(msg)


def show(value: Any) -> None:
    """Print a result for a person: a list of objects as a table, an object as key and value."""
    plain = as_plain(value)
    console = Console()
    if isinstance(plain, list) and plain and all(isinstance(row, dict) for row in plain):
        columns = [k for k, v in plain[0].items() if not isinstance(v, dict)]
        table = Table(*columns, box=None)
        for row in plain:
            table.add_row(*[_cell(row[c]) for c in columns])
        console.print(table)
    elif isinstance(plain, dict):
        table = Table(show_header=False, box=None)
        for key, item in plain.items():
            table.add_row(key, _cell(item))
        console.print(table)
    else:
        console.print(_cell(plain))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and all(isinstance(v, str | int) for v in value):
        text = ", ".join(map(str, value)) or "–"
        return text if len(text) <= 160 else f"{text[:157]}…"
    if isinstance(value, dict | list):
        text = json.dumps(value)
        return text if len(text) <= 160 else f"{text[:157]}…"
    return str(value)


def pipeline_summary(settings: Settings, done: PipelineResult) -> dict[str, Any]:
    """One JSON object for a whole run: verdict and skill, where the results are, seconds by stage."""
    selection = json.loads((settings.run_path / "selection.json").read_text())
    return {
        "selection": selection,
        "report": str(settings.run_path / "report.html"),
        "stage_seconds": done.stage_seconds,
        "home": str(settings.home_path),
        "stages": {
            name: _counts(as_plain(result)) for name, result in done.results.items() if name != "select"
        },
    }


def _counts(plain: Any) -> dict[str, Any]:
    """The single numbers and words of a stage's result; its lists and tables are in the lake."""
    return {k: v for k, v in plain.items() if not isinstance(v, dict | list)}


def evaluation_table(report: Mapping[str, Any]) -> Table:
    """Every family and naive baseline from report.json's `comparison` rows; fits 80 characters."""
    splits = {"validation": "val", "test": "test", "oot": "oot", "oot2": "oot2"}
    table = Table(
        title="Skill over the zero forecast and errors, both in percent", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column("model", no_wrap=True)
    for measure in ("R²", "RMSE"):
        for short in splits.values():
            table.add_column(f"{measure}\n{short}", justify="right", no_wrap=True)
    for row in report["comparison"]:
        skills = [_number(row["r2_oos"].get(s), 100, 2) for s in splits]
        errors = [_number(row["rmse_pct"].get(s), 1, 4) for s in splits]
        table.add_row(row["model"], *skills, *errors)
    return table


def ablation_table(ablation: Mapping[str, Any]) -> Table:
    """Every family with and without the news on test, from selection.json's `ablation`."""
    table = Table(title="With and without the news, test rows, percent", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("family", no_wrap=True)
    for name in ("R²\nwith", "R²\nwithout", "RMSE\nwith", "RMSE\nwithout", "p-value"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in ablation["families"]:
        pair = row["splits"]["test"]
        figures = [_number(pair["r2_oos"][key], 100, 2) for key in ("with", "without")]
        figures += [_number(pair["rmse_pct"][key], 1, 4) for key in ("with", "without")]
        table.add_row(row["family"], *figures, "–" if pair["p_value"] is None else f"{pair['p_value']:.2g}")
    return table


def _number(value: float | None, scale: float, digits: int) -> str:
    """At most six characters up to a million; a large number needs no decimals."""
    if value is None:
        return "–"
    size = abs(value * scale)
    return f"{value * scale:.{digits if size < 10 else 1 if size < 100 else 0}f}"


def show_pipeline(settings: Settings, done: PipelineResult) -> None:
    """Print the evaluation table, the verdict in words, the seconds by stage and where the report is."""
    from marketray.evaluation.outcome import ablation_notes

    console = Console()
    report = json.loads((settings.run_path / "report.json").read_text())
    console.print(evaluation_table(report))
    ablation = report["selection"]["ablation"]
    if ablation is not None:
        console.print(ablation_table(ablation))
        for note in ablation_notes(ablation):
            console.print(note, highlight=False)
    console.print(report["verdict_text"], highlight=False)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in done.stage_seconds.items())
    console.print(f"seconds: {spent}", highlight=False)
    console.print(f"report: {settings.run_path / 'report.html'}", highlight=False, soft_wrap=True)
