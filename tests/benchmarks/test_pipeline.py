"""The pipeline benchmark prints its figures as one JSON line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.pipeline import main


def test_the_last_line_holds_the_figures(
    last_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # no start of a sentiment model and no trees: most of the time, and no figure of their own
    monkeypatch.setenv("MARKETRAY_SENTIMENT__ENABLED", "false")
    monkeypatch.setenv("MARKETRAY_TUNING__FAMILIES", '["ar"]')
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    line = last_line(main, "--bars", "12000", "--stage1", "2", "--stage2", "0")
    assert set(line) == {"bars", "features", "trials", "seconds", "stage_seconds", "rss_mb"}
    assert (line["bars"], line["trials"]) == (12_000, 2)
    assert line["features"] >= 100
    assert list(line["stage_seconds"]) == ["ingest", "features", "dataset", "tune", "select"]
    assert sum(line["stage_seconds"].values()) <= line["seconds"]
    assert 50 < line["rss_mb"] < 4_000
