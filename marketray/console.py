"""What the command line prints: plain values for ``--json``, tables for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from marketray.pipeline import PipelineResult
    from marketray.settings import Settings

__all__ = [
    "ablation_table",
    "as_plain",
    "evaluation_table",
    "pipeline_summary",
    "print_whole",
    "show",
    "show_pipeline",
]


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
    """Print a result for a person: a list of objects as a table, an object as key and value.

    No number and no name is cut: cells wrap between words, and what is still wider than the terminal makes
    long lines, which the terminal wraps.
    """
    plain = as_plain(value)
    if isinstance(plain, list) and plain and all(isinstance(row, dict) for row in plain):
        columns = [k for k, v in plain[0].items() if not isinstance(v, dict)]
        _print_cells([columns, *([_cell(row[c]) for c in columns] for row in plain)], header=True)
    elif isinstance(plain, dict):
        _print_cells([[key, text] for key, text in _pairs(plain)], header=False)
    else:
        print_whole(_cell(plain))


def print_whole(what: str | Table) -> None:
    """Print a table at its full width, or a text as it is, whatever the width of the terminal."""
    console = Console()
    if isinstance(what, str):
        console.print(what, highlight=False, markup=False, soft_wrap=True)
        return
    needed = console.measure(what, options=console.options.update(width=_ENDLESS)).maximum
    console.width = max(console.width, needed)
    console.print(what)


_ENDLESS = 10_000
"""Characters: wider than any table."""


def _print_cells(rows: list[list[str]], *, header: bool) -> None:
    """Columns two blanks apart, as narrow as the terminal wants and no narrower than their longest words."""
    if not rows:
        return
    console, columns = Console(), list(zip(*rows, strict=True))
    natural = [max(map(len, column)) for column in columns]
    longest = [max((len(word) for text in column for word in text.split()), default=0) for column in columns]
    longest[-1] = min(longest[-1], _LAST)  # nothing stands to its right
    widths = _narrowed(natural, longest, console.width - 2 * (len(columns) - 1))
    for number, row in enumerate(rows):
        style = "bold" if header and number == 0 else None
        cells = [_wrapped(text, width) for text, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            console.print(line.rstrip(), style=style, highlight=False, markup=False, soft_wrap=True)


_LAST = 24
"""Characters that the last column keeps, if it has as many."""


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _narrowed(natural: list[int], least: list[int], room: int) -> list[int]:
    """Widths whose sum is `room` at most where that can be, the widest column giving way first."""
    widths = list(natural)
    while sum(widths) > room:
        giving = [i for i, width in enumerate(widths) if width > least[i]]
        if not giving:
            break
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


def _pairs(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Key and text of every single value; an object inside an object counts by its parts."""
    for key, item in plain.items():
        if isinstance(item, dict) and item:
            yield from _pairs(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _cell(item)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return _listed(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "–"
    return str(value)


_LISTED = 160
"""Characters of a list that are shown: whole entries only."""


def _listed(values: list[Any]) -> str:
    """The first entries of a list, and how many more there are."""
    shown: list[str] = []
    for text in map(_cell, values):
        if shown and len(", ".join([*shown, text])) > _LISTED:
            return f"{', '.join(shown)} and {len(values) - len(shown)} more"
        shown.append(text)
    return ", ".join(shown) or "–"


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

    report = json.loads((settings.run_path / "report.json").read_text())
    print_whole(evaluation_table(report))
    ablation = report["selection"]["ablation"]
    notes = []
    if ablation is not None:
        print_whole(ablation_table(ablation))
        notes = ablation_notes(ablation)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in done.stage_seconds.items())
    for text in (*notes, report["verdict_text"], f"seconds: {spent}"):
        Console().print(text, highlight=False, markup=False)
    print_whole(f"report: {settings.run_path / 'report.html'}")
