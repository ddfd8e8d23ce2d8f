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
# Works for some seconds of processor time, says how many it used since its start, does what follows.
BUSY = "import time\nwhile time.process_time() < {}: pass\nprint(time.process_time(), flush=True)\n{}"


def test_processor_time_of_this_process_and_its_descendants() -> None:
    grandchild = BUSY.format(0.5, "input()")  # lives until the test has looked
    child = BUSY.format(
        0.4, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    )
    processor = ProcessorTime()
    processor.start()
    own = time.process_time()
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        told = float(running.stdout.readline()) + float(running.stdout.readline())
        while time.process_time() - own < 0.3:
            pass
        used = processor.stop()
        told += time.process_time() - own
        running.stdin.write("\n")
    # What the child used to start the other, and ticks of 10 ms, are not in what they told.
    assert told == pytest.approx(used, abs=0.3)
    assert told > 1.2


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
