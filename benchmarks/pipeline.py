"""The whole pipeline on simulated bars: ``python -m benchmarks.pipeline``; the last line is JSON.

Keys: bars, features, trials, seconds, stage_seconds, rss_mb (the largest resident set that any one
process of the run reached, in MB, sampled every 0.2 s).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.memory import PeakMemory
from marketray.cluster import connect
from marketray.console import as_plain
from marketray.pipeline import run_pipeline
from marketray.settings import load_settings


def measure(bars: int, stage1: int, stage2: int) -> dict[str, object]:
    """Run the pipeline once in a fresh home and report the figures."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MARKETRAY_HOME"] = str(Path(folder))
        settings = load_settings(
            None,
            {
                "name": "benchmark",
                "instrument": "SIM500_USD",
                "source": {"kind": "simulator", "bars": bars},
                "tuning": {"stage1_trials": stage1, "stage2_trials": stage2},
            },
        )
        memory = PeakMemory()
        memory.start()
        connect(settings)
        started = time.perf_counter()
        try:
            done = run_pipeline(settings)
        finally:
            seconds = time.perf_counter() - started
            rss_mb = memory.stop()
            ray.shutdown()
    features = as_plain(done.results["features"])
    return {
        "bars": bars,
        "features": features["features"],
        "trials": done.results["tune"].trials,
        "seconds": round(seconds, 1),
        "stage_seconds": done.stage_seconds,
        "rss_mb": round(rss_mb),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=140_000)
    parser.add_argument("--stage1", type=int, default=5)
    parser.add_argument("--stage2", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.bars, arguments.stage1, arguments.stage2)))


if __name__ == "__main__":
    main()
