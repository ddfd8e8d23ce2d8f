"""One forecast over HTTP, split on: ``python -m benchmarks.serving``; the last line is JSON.

Keys: mode; rps_c1, p50_ms_c1, p99_ms_c1 (one connection); rps_c16, p99_ms_c16 (sixteen); split_overhead_ms
(median with the traffic split 90/10 between two slots, less that with one slot, in turns); uvicorn_rps_c16,
uvicorn_p50_ms_c1 (the same model behind FastAPI and uvicorn alone, one process: no split, no failover, no
record); dropped (requests without a good answer of `switched`, sent at a constant rate while the weights were
moved `moves` times); switched_p99_ms. The load comes from this process, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from benchmarks.load import Load, Sample, percentile
from marketray.cluster import connect
from marketray.pipeline import run_pipeline
from marketray.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "benchmark"  # of a service that lives as long as the benchmark
_WARM_UP_SECONDS = 3.0


def served_home(folder: Path, bars: int) -> tuple[Path, Settings]:
    """A home with a registered model, made by the pipeline, and the configuration to serve it with."""
    import ray

    home = {"home": str(folder), "instrument": "SIM500_USD", "serving": {"port": _free_port()}}
    tuning = {"families": ["lightgbm"], "stage1_trials": 2, "stage2_trials": 2}
    source = {"kind": "simulator", "bars": bars}
    settings = load_settings(None, {**home, "source": source, "tuning": tuning, "name": "benchmark"})
    connect(settings)
    try:
        run_pipeline(settings)
    finally:
        ray.shutdown()
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump({**home, "source": source, "name": "benchmark"}))
    return file, settings


@contextmanager
def running(module: str, *arguments: str, url: str, **environment: str) -> Iterator[None]:
    """A Python module in a process of its own, from when it is ready until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "MARKETRAY_TOKEN": TOKEN, **environment},
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        _await_ready(url, process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def asked(url: str, connections: int, seconds: float) -> list[Sample]:
    """Samples of POST /predict with a key of its own for each request, after a warm-up."""
    headers = {"X-Client-Key": "client-{n}"}
    warm_up = min(_WARM_UP_SECONDS, seconds)
    asyncio.run(Load(f"{url}/predict", headers=headers).run(connections, warm_up))
    return asyncio.run(Load(f"{url}/predict", headers=headers).run(connections, seconds))


def figures(samples: list[Sample], seconds: float) -> tuple[float, float, float]:
    """Good answers a second, and the median and 99th percentile of their time in ms."""
    good = [1e3 * s.seconds for s in samples if s.status == 200]
    if not good:
        msg = f"no good answer among {len(samples)}; the last one: {samples[-1] if samples else None}"
        raise RuntimeError(msg)
    return len(good) / seconds, percentile(good, 0.5), percentile(good, 0.99)


def split(url: str, green: float) -> None:
    """Give green this much of the traffic, in percent, and blue the rest."""
    change = {"weights": {"blue": 100 - green, "green": green}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.put(f"{url}/traffic", json=change, headers=headers, timeout=60).raise_for_status()


def split_overhead_ms(url: str, seconds: float, rounds: int = 4) -> float:
    """Median time at one connection with the traffic split, less that with one slot; in turns."""
    medians: dict[float, list[float]] = {0.0: [], 10.0: []}
    for _ in range(rounds):
        for green, found in medians.items():
            split(url, green)
            found.append(figures(asked(url, 1, seconds / rounds), seconds / rounds)[1])
    return median(medians[10.0]) - median(medians[0.0])


async def _switched(url: str, rate: float, moves: int, seconds: float) -> list[Sample]:
    load, stop = Load(f"{url}/predict", headers={"X-Client-Key": "client-{n}"}), asyncio.Event()
    task = asyncio.create_task(load.until(stop, 16, rate))
    for move in range(moves):
        await asyncio.to_thread(split, url, float((10, 50, 100, 0)[move % 4]))
        await asyncio.sleep(seconds / moves)
    stop.set()
    return await task


def service_figures(url: str, seconds: float, rate: float, moves: int) -> dict[str, Any]:
    """Figures of the running service at `url`: its champion in both slots, the traffic split between them."""
    change = {"models": {"green": "champion"}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.put(f"{url}/traffic", json=change, headers=headers, timeout=60).raise_for_status()
    split(url, 10)
    rps_c1, p50_c1, p99_c1 = figures(asked(url, 1, seconds), seconds)
    rps_c16, _, p99_c16 = figures(asked(url, 16, seconds), seconds)
    overhead = split_overhead_ms(url, 2 * seconds)
    switched = asyncio.run(_switched(url, rate, moves, 2 * seconds))
    return {
        "rps_c1": round(rps_c1),
        "p50_ms_c1": round(p50_c1, 2),
        "p99_ms_c1": round(p99_c1, 2),
        "rps_c16": round(rps_c16),
        "p99_ms_c16": round(p99_c16, 2),
        "split_overhead_ms": round(overhead, 2),
        "moves": moves,
        "switched": len(switched),
        "switched_p99_ms": round(figures(switched, 2 * seconds)[2], 2),
        "dropped": sum(s.status != 200 for s in switched),
    }


def rival_figures(config: Path, seconds: float) -> dict[str, Any]:
    """Figures of FastAPI and uvicorn alone, with the champion of `config`."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with running("benchmarks.rivals.plain_api", "--config", str(config), "--port", str(port), url=url):
        _, p50_c1, _ = figures(asked(url, 1, seconds), seconds)
        rps_c16, _, _ = figures(asked(url, 16, seconds), seconds)
    return {"uvicorn_rps_c16": round(rps_c16), "uvicorn_p50_ms_c1": round(p50_c1, 2)}


def measure(bars: int, seconds: float, rate: float, moves: int, mode: str) -> dict[str, Any]:
    """All figures, on a service and a rival that are started for it."""
    with tempfile.TemporaryDirectory() as folder:
        config, settings = served_home(Path(folder), bars)
        url = f"http://127.0.0.1:{settings.serving.port}"
        serve = ("marketray.cli", "serve", "--config", str(config))
        with running(*serve, url=url, MARKETRAY_SERVING__MODE=mode):
            ours = service_figures(url, seconds, rate, moves)
        return {"mode": mode, **ours, **rival_figures(config, seconds)}


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        if process.poll() is not None:
            msg = f"it ended with {process.returncode} before it was ready"
            raise RuntimeError(msg)
        try:
            if httpx.get(f"{url}/ready", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    msg = f"{url} was not ready within 180 s"
    raise TimeoutError(msg)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second while weights move")
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--mode", choices=("fast", "plain"), default="fast")
    arguments = parser.parse_args()
    print(json.dumps(measure(**vars(arguments))))


if __name__ == "__main__":
    main()
