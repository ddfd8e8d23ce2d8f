"""``marketray serve`` answers ``marketray predict`` and ends cleanly on SIGTERM."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import yaml

from benchmarks.serving import TOKEN, rival_figures, service_figures
from tests.e2e.conftest import SMALL, Shell


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where the service's Ray keeps its files."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def service(shell: Shell, first_run: Any, ray_folder: Path) -> Iterator[str]:
    """The address of a running service over the small run's champion."""
    own = {"MARKETRAY_TOKEN": TOKEN, "RAY_TMPDIR": str(ray_folder)}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = shell.home / "serve.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "marketray"), "serve", "--config", str(shell.config)],
            cwd=shell.home,
            env={**shell.environment(), "MARKETRAY_SERVING__PORT": str(port), **own},
            stdout=sink,
            stderr=sink,
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.3)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) in (0, 143, -signal.SIGTERM)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health", timeout=2)


def test_the_latest_forecast_is_the_models_on_the_last_bar(
    service: str, shell: Shell, first_run: Any
) -> None:
    printed = shell.marketray("predict", "--url", service, "--config", str(shell.config), "--json")
    answer = json.loads(printed)
    bars = pl.read_parquet(shell.home / "lake/bronze/bars/instrument=SIM500_USD/**/part.parquet")
    last = bars.sort("time").row(-1, named=True)
    assert answer["last_close"] == pytest.approx(last["close"], rel=1e-12)
    assert answer["prediction"] == pytest.approx(last["close"] * (1 + answer["predicted_return"]), rel=1e-9)
    sign = math.copysign(1, answer["predicted_return"])
    assert answer["direction"] == ("up" if sign > 0 else "down")
    assert answer["model_version"] in (1, "1")
    assert answer["evidence"]["verdict"] == first_run["selection"]["verdict"]
    assert answer["test_rmse_pct"] == pytest.approx(first_run["selection"]["test_rmse_pct"])


def test_the_forecast_equals_the_batch_features_through_the_native_model(
    service: str, shell: Shell, first_run: Any
) -> None:
    from marketray.models import load_model

    answer = httpx.post(f"{service}/predict", json={"instrument": "SIM500_USD"}).json()
    model = load_model(Path(first_run["selection"]["model_path"]))
    silver = pl.read_parquet(shell.home / "lake/silver/features/instrument=SIM500_USD/**/part.parquet")
    row = silver.sort("time").tail(1).select(model.columns).fill_null(float("nan"))
    expected = float(model.predict(row.to_numpy().astype("float32"))[0])
    assert answer["predicted_return"] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_benchmark_moves_the_traffic_and_drops_nothing(service: str, shell: Shell) -> None:
    found = service_figures(service, seconds=0.5, rate=20.0, moves=4)
    assert found["dropped"] == 0
    assert found["switched"] > 0
    assert all(found[key] > 0 for key in ("rps_c1", "rps_c16"))
    assert 0 < found["p50_ms_c1"] <= found["p99_ms_c1"] <= 15_000
    moved = httpx.get(f"{service}/traffic").json()["history"][:4]
    assert [entry["weights"]["green"] for entry in moved] == [0, 100, 50, 10]


def test_prometheus_finds_what_was_counted_where_ray_says(service: str, ray_folder: Path) -> None:
    for _ in range(3):
        httpx.post(f"{service}/predict", json={}).raise_for_status()
    found = json.loads((ray_folder / "ray/prom_metrics_service_discovery.json").read_text())
    pages = [f"http://{target}/metrics" for entry in found for target in entry["targets"]]
    counted = re.compile(r'^ray_marketray_requests_total\{.*slot="blue".*\} (.+)$', re.MULTILINE)
    deadline = time.monotonic() + 60
    while True:
        values = [float(v) for page in pages for v in counted.findall(httpx.get(page).text)]
        if sum(values) >= 3:
            break
        assert time.monotonic() < deadline, values
        time.sleep(0.5)


def test_the_rival_of_the_benchmark_serves_the_same_model(shell: Shell, first_run: Any) -> None:
    config = shell.home / "rival.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "home": str(shell.home)}))
    found = rival_figures(config, seconds=0.5)
    assert 0 < found["uvicorn_p50_ms_c1"] <= 15_000
    assert found["uvicorn_rps_c16"] > 0


def test_an_unreachable_service_is_one_clear_error(shell: Shell) -> None:
    url = "http://127.0.0.1:9"
    printed = shell.marketray("predict", "--url", url, "--config", str(shell.config), code=1)
    assert printed.count("error: ") == 1
    assert url in printed
    assert "Traceback" not in printed
