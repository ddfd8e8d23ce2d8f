"""Plain values and tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from marketray.console import as_plain, evaluation_table, print_whole, show


@dataclass
class Result:
    n: int
    r2: float
    at: datetime
    nested: dict[str, object]


def test_plain_form_of_every_kind_of_value() -> None:
    result = Result(
        3, float("nan"), datetime(2024, 1, 2, tzinfo=UTC), {"p": Path("/a"), "d": date(2024, 1, 2)}
    )
    assert as_plain([result, np.float64(0.5), np.bool_(True), (1, None), float("inf")]) == [
        {"n": 3, "r2": None, "at": "2024-01-02T00:00:00+00:00", "nested": {"p": "/a", "d": "2024-01-02"}},
        0.5,
        True,
        [1, None],
        None,
    ]


def test_a_value_without_a_plain_form_is_named() -> None:
    with pytest.raises(TypeError, match="object has no plain form"):
        as_plain(object())


def test_show_prints_lists_as_tables_and_objects_as_pairs(capsys) -> None:
    show(
        [{"version": 2, "verdict": "promoted", "tags": {"a": 1}}, {"version": 1, "verdict": None, "tags": {}}]
    )
    show({"r2": 0.123456789, "empty": None})
    printed = capsys.readouterr().out.split()
    assert printed == ["version", "verdict", "2", "promoted", "1", "–", "r2", "0.123457", "empty", "–"]


def test_the_evaluation_table_shows_percent_and_gaps() -> None:
    report = {
        "comparison": [
            {"model": "ar", "r2_oos": {"test": 0.0123, "oot": -0.002}, "rmse_pct": {"test": 0.05}},
            {"model": "zero", "r2_oos": {"test": 0.0}, "rmse_pct": {}},
        ]
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(evaluation_table(report))
    rows = [line.split() for line in captured.get().splitlines() if line.split()[:1] in (["ar"], ["zero"])]
    assert rows == [
        ["ar", "–", "1.23", "-0.20", "–", "–", "0.0500", "–", "–"],
        ["zero", "–", "0.00", "–", "–", "–", "–", "–", "–"],
    ]


SKILL = {"validation": -107.0, "test": -0.9754, "oot": -10.7, "oot2": -0.0308}
ERROR = {"validation": 0.1363, "test": 0.1596, "oot": 0.2001, "oot2": 0.1234}
REPORT = {"comparison": [{"model": "training_mean", "r2_oos": SKILL, "rmse_pct": ERROR}]}


def test_the_evaluation_table_cuts_no_number_of_a_terminal_of_80_characters() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(evaluation_table(REPORT))
    row = next(line.split() for line in captured.get().splitlines() if "training" in line)
    percent, errors = ["-10700", "-97.5", "-1070", "-3.08"], ["0.1363", "0.1596", "0.2001", "0.1234"]
    assert row == ["training_mean", *percent, *errors]


ROW = {
    "model": "marketray-SPX500_USD",
    "stage": "Production",
    "aliases": ["champion", "shadow"],
    "verdict": "bootstrap",
    "p_value": 0.00412345,
    "hash": "0123456789abcdef" * 2,
    "reason": "moved on somebody's word, after a week beside the champion",
}


@pytest.mark.parametrize("columns", ["200", "80", "40", "1"])
def test_no_terminal_cuts_a_number_or_a_name(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    words = {str(text) for key, text in ROW.items() if key not in ("aliases", "reason")} | set(ROW)
    words |= {"champion,", "shadow", *str(ROW["reason"]).split()}
    for value in ([ROW, ROW], {"row": ROW, **ROW}):
        show(value)
        printed = capsys.readouterr().out
        assert words - {word.removeprefix("row.") for word in printed.split()} == set()
        assert "…" not in printed
        assert not any(line.endswith(" ") for line in printed.splitlines())
    print_whole(evaluation_table(REPORT))
    assert {"training_mean", "-10700", "0.1234"} <= set(capsys.readouterr().out.split())


def test_a_table_is_as_wide_as_the_terminal_where_its_words_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show([{"n": 1, "why": "five words of which two wrap", "on": "2024-01-02"}])
    assert capsys.readouterr().out.splitlines() == [
        "n  why                        on",
        "1  five words of which two    2024-01-02",
        "   wrap",
    ]


def test_a_long_list_shows_whole_entries_and_counts_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    show({"features": [f"feature_{n}" for n in range(100)], "rules": [{"name": "drift", "ok": True}]})
    printed = " ".join(capsys.readouterr().out.split())
    shown = ", ".join(f"feature_{n}" for n in range(14))
    assert printed == f"features {shown} and 86 more rules name drift, ok True"
