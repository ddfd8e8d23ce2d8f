"""Features through Ray Data against vectorised pandas and against one Polars process, on the same bars.

    python -m benchmarks.features --rows 1700000 --sizes 170000,1700000,17000000

Each reads one-minute bars from Parquet, computes the same columns as float64 and writes them as zstd. The
feature stage runs on a local Ray that has been started; everything after that counts, the start of its
workers too: `first_seconds` is the first run, `seconds` the median of three more. pandas and Polars each
run in a fresh process and are timed after their imports. The last line is JSON:

rows, columns, seconds, first_seconds; pandas_seconds, pandas_parts (read, compute, write), speedup
(pandas_seconds / seconds); polars_seconds; rss_mb (the most that any one process of our runs held) and
rss_mb_by_size; per_bar_us and polars_per_bar_us (microseconds a bar, by size); ray_pays_from_rows (the
size from which our stage beats the Polars process, interpolated between sizes; null where it does at none);
online_ms (median time of one live row with all features).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import online
from benchmarks.bars import fill_lake
from benchmarks.memory import PeakMemory
from marketray.cluster import prepare_environment
from marketray.features.groups import built_in_features
from marketray.features.stage import BARS, DATASET, run_features
from marketray.lake import Lake
from marketray.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
REPEATS = 3


def all_groups() -> list[str]:
    """Every built-in group but the lags, which are sixty shifts of one column."""
    return [g for g in dict.fromkeys(f.group for f in built_in_features(1)) if g != "lags"]


def stage_seconds(settings: Settings, repeats: int) -> list[float]:
    """Wall clock of the feature stage, each time from nothing."""
    spent = []
    for _ in range(repeats):
        Lake(settings.lake_uri).delete(DATASET)
        started = time.perf_counter()
        run_features(settings)
        spent.append(time.perf_counter() - started)
    return spent


def rival(name: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """What a rival prints; its files are deleted."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (config := Path(scratch) / "settings.json").write_text(settings.model_dump_json())
        (out := Path(scratch) / "out").mkdir()
        target = out / "rows.parquet" if name == "pandas_pass" else out
        command = [sys.executable, "-m", f"benchmarks.rivals.{name}", str(config), str(target)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ray_pays_from(ours: dict[int, float], theirs: dict[int, float]) -> int | None:
    """Size from which `ours` is the smaller time for good, where the logarithm of their ratio crosses 0."""
    sizes = sorted(ours)
    ahead = [math.log(ours[n] / theirs[n]) for n in sizes]
    if ahead[-1] >= 0:
        return None
    for i in range(len(sizes) - 1, 0, -1):
        if ahead[i - 1] >= 0:
            share = ahead[i - 1] / (ahead[i - 1] - ahead[i])
            return round(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share)
    return sizes[0]


def measure(rows: int, sizes: Sequence[int], groups: Sequence[str], folder: Path) -> dict[str, Any]:
    """All figures; `rows` is measured first, so that its first run also starts the workers."""
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    rss: dict[int, float] = {}
    figures: dict[str, Any] = {"rows": rows}
    for size in [rows, *(n for n in sizes if n != rows)]:
        settings = load_settings(
            None, {"home": str(folder), "instrument": f"BARS_{size}", "features": {"groups": list(groups)}}
        )
        lake = Lake(settings.lake_uri)
        fill_lake(lake, settings.instrument, settings.market, size)
        memory = PeakMemory()
        memory.start()
        first = stage_seconds(settings, 1)[0]
        again = stage_seconds(settings, REPEATS) if size <= rows else [first]
        rss[size], ours[size] = memory.stop(), median(again)
        lake.delete(DATASET)
        theirs[size] = rival("polars_pass", settings, folder)["seconds"]
        if size == rows:
            pandas = rival("pandas_pass", settings, folder)
            parts = {name: round(pandas[name], 2) for name in ("read", "compute", "write")}
            figures |= {
                "columns": pandas["columns"],
                "seconds": round(ours[size], 2),
                "first_seconds": round(first, 2),
                "pandas_seconds": round(pandas["seconds"], 2),
                "pandas_parts": parts,
                "polars_seconds": round(theirs[size], 2),
                "speedup": round(pandas["seconds"] / ours[size], 2),
            }
        lake.delete(BARS)
    measured = sorted(sizes)
    return figures | {
        "rss_mb": round(max(rss.values())),
        "rss_mb_by_size": {str(n): round(rss[n]) for n in sorted(rss)},
        "per_bar_us": {str(n): round(1e6 * ours[n] / n, 3) for n in measured},
        "polars_per_bar_us": {str(n): round(1e6 * theirs[n] / n, 3) for n in measured},
        "ray_pays_from_rows": ray_pays_from(ours, theirs),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_700_000)
    parser.add_argument("--sizes", default="170000,1700000,17000000", help="rows, comma-separated")
    parser.add_argument("--groups", default=",".join(all_groups()), help="comma-separated")
    parser.add_argument("--online-bars", type=int, default=300)
    options = parser.parse_args()
    sizes = [int(text) for text in options.sizes.split(",")]
    prepare_environment()
    import ray

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MARKETRAY_HOME"] = folder
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        try:
            figures = measure(options.rows, sizes, options.groups.split(","), Path(folder))
        finally:
            ray.shutdown()
    figures["online_ms"] = online.measure(options.online_bars)["ms_per_bar_p50"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
