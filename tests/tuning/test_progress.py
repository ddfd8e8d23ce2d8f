"""Progress: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from marketray.tuning.progress import ProgressView
from marketray.tuning.records import TrialRecord, write_json

COMPLETE = TrialRecord(
    "ar-stage1-0000",
    "ar",
    1,
    0,
    "complete",
    {},
    0.98765,
    1.2345e-3,
    1,
    [],
    [],
    [],
    [[100.0, 0.98765]],
    0,
    0,
    0,
    None,
)
PRUNED = replace(
    COMPLETE, trial_id="ar-stage1-0001", number=1, state="pruned", cv_rmse=None, rungs=[[10.0, 0.99]]
)


def store(folder: Path, record: TrialRecord) -> None:
    write_json(folder / "ar" / "stage1" / f"trial_{record.number:04d}.json", record.__dict__)


def test_plain_lines_once_for_each_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with (
        caplog.at_level(logging.INFO, "marketray.tuning"),
        ProgressView(tmp_path, {"ar": (5, 2)}, console) as view,
    ):
        assert view.update() == 0
        store(tmp_path, COMPLETE)
        assert view.update() == 1
        store(tmp_path, PRUNED)
        assert view.update() == 2
        assert view.update() == 2
    assert caplog.messages == [
        "tune: ar stage 1: 1 of 5 trials; cv_rmse 1.2345e-03, 0.98765 of zero",
        "tune: ar stage 1: 2 of 5 trials; pruned after the sample, 0.98765 of zero",
    ]


def test_a_table_on_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with (
        caplog.at_level(logging.INFO, "marketray.tuning"),
        ProgressView(tmp_path, {"ar": (5, 2)}, console) as view,
    ):
        store(tmp_path, COMPLETE)
        store(tmp_path, PRUNED)
        view.update()
    shown = screen.getvalue()
    assert "2/5" in shown
    assert "0/2" in shown
    assert "1.2345e-03" in shown
    assert caplog.messages == []
