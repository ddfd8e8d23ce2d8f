"""Kill the pipeline at any moment: the next run ends with the lake that an undisturbed one writes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from marketray.pipeline import run_stage
from marketray.settings import load_settings

STAGES = """
import sys
from marketray.pipeline import run_stage
from marketray.settings import load_settings
settings = load_settings(sys.argv[1])
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print("ready", flush=True)
for stage in ("ingest", "features", "dataset"):
    run_stage(stage, settings)
"""


def settings_file(home: Path, bars: int) -> Path:
    path = home / "settings.yaml"
    source = {"kind": "simulator", "bars": bars, "seed": 5}
    path.write_text(
        yaml.safe_dump({"name": "chaos", "instrument": "SIM", "home": str(home), "source": source})
    )
    return path


def start(config: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGES, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_with_children(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and whatever Ray it started, as a power cut would."""
    children = psutil.Process(process.pid).children(recursive=True)
    for victim in (process.pid, *(c.pid for c in children)):
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def written(home: Path) -> dict[str, str]:
    return {
        str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted((home / "lake").rglob("*"))
        if p.is_file() and not p.name.endswith(".tmp")
    }


def finish(config: Path) -> dict[str, tuple[int, int]]:
    """Run all three stages to the end on this process's Ray; stage -> (partitions written, skipped)."""
    settings = load_settings(config)
    results = {stage: run_stage(stage, settings) for stage in ("ingest", "features", "dataset")}
    return {stage: (result.written, result.skipped) for stage, result in results.items()}


def check(tmp_path: Path, bars: int, kills: int) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for home in (calm, stormy):
        home.mkdir()
    reference = settings_file(calm, bars)
    began = time.perf_counter()
    totals = finish(reference)
    duration = time.perf_counter() - began
    draw, config = random.Random(11), settings_file(stormy, bars)
    for _ in range(kills):
        process = start(config)
        time.sleep(draw.uniform(0.1, duration * 0.8))
        kill_with_children(process)
        whole = {name for name in written(stormy) if name.endswith(".parquet")}
        assert whole <= set(written(calm))
    done = finish(config)
    assert written(stormy) == written(calm)
    for stage, (wrote, _) in totals.items():
        assert wrote > 0
        assert sum(done[stage]) == sum(totals[stage])
    assert {stage: wrote for stage, (wrote, _) in finish(config).items()} == dict.fromkeys(totals, 0)


def test_a_run_killed_twice_ends_byte_equal(ray_local: None, tmp_path: Path) -> None:
    check(tmp_path, bars=20_000, kills=2)


@pytest.mark.slow
def test_a_run_killed_twelve_times_ends_byte_equal(ray_local: None, tmp_path: Path) -> None:
    check(tmp_path, bars=200_000, kills=12)
