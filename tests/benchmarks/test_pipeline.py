"""The pipeline benchmark prints its figures as one JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_last_line_holds_the_figures() -> None:
    options = ["--bars", "16000", "--stage1", "1", "--stage2", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline", *options],
        cwd=ROOT,
        env={**os.environ, "MARKETRAY_SENTIMENT__ENABLED": "false"},  # which takes a model's start
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(line) == {"bars", "features", "trials", "seconds", "stage_seconds", "rss_mb"}
    assert (line["bars"], line["trials"]) == (16_000, 3)
    assert line["features"] >= 100
    assert list(line["stage_seconds"]) == ["ingest", "features", "dataset", "tune", "select"]
    assert sum(line["stage_seconds"].values()) <= line["seconds"]
    assert 50 < line["rss_mb"] < 4_000
