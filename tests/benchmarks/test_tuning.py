"""The tuning benchmark prints its figures as one JSON line, and counts its processes' work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processor import ProcessorTime

ROOT = Path(__file__).parents[2]
BUSY = "import time; t = time.process_time()\nwhile time.process_time() - t < {}: pass\n{}"


def test_processor_time_of_this_process_and_its_descendants() -> None:
    child = BUSY.format(0.4, "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])")
    processor = ProcessorTime()
    processor.start()
    own = time.process_time()
    running = subprocess.Popen([sys.executable, "-c", child, BUSY.format(0.5, "time.sleep(1)")])
    while time.process_time() - own < 0.3:
        pass
    running.wait()
    assert 1.0 < processor.stop() < 2.0  # 0.3 + 0.4 + 0.5, the interpreters' start, less the last samples


@pytest.mark.slow
def test_the_last_line_holds_the_figures() -> None:
    options = ["--rows", "6000", "--columns", "12", "--stage1", "2", "--stage2", "2", "--cpus", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tuning", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert line["trials"] == line["sequential_trials"] == 12
    assert line["speedup"] == line["sequential_seconds"] / line["seconds"]
    assert 0.99 < line["rmse_ratio"] < 1.01
    assert line["cpu_seconds"] > 0
    assert line["overhead_share"] > 0
