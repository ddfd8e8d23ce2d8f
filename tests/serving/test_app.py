"""The real Serve application: from the registry to an answer over HTTP, and its refusals."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marketray.errors import ClusterError, RegistryError, ServingError, SettingsError
from marketray.serving import run as serving
from marketray.serving.app import APP_NAME, build
from marketray.serving.client import predict
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market, bars_json


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture
def registered(settings: Settings, market: Market) -> Settings:
    """The settings, with the XGBoost model registered as champion and a free port to serve at."""
    from marketray.registry import Registry

    registry = Registry(settings)
    evidence = {"verdict": "bootstrap", "r2_oos": 0.01, "p_value": 0.02}
    made = registry.register(market.folders["xgboost"], key="k", evidence=evidence)
    registry.set_alias("champion", made.version)
    return settings.model_copy(update={"serving": settings.serving.model_copy(update={"port": free_port()})})


@pytest.fixture
def stopped(ray_local: None) -> Iterator[None]:
    """Ray, and no service left after the test."""
    yield
    serving.stop()


def test_champion_is_served(registered: Settings, market: Market, stopped: None) -> None:
    import ray
    from ray import serve

    started = time.monotonic()
    url = serving.start(registered)
    assert time.monotonic() - started < 60  # about 8 s; a busy machine takes longer
    answer = predict(url, instrument=INSTRUMENT)
    assert answer["model_version"] == 1
    assert answer["evidence"]["verdict"] == "bootstrap"
    assert answer["last_close"] == market.bars["close"][-1]
    sent = predict(url, bars=bars_json(market.bars.tail(4_000)))
    assert sent["predicted_return"] == answer["predicted_return"]

    reply = httpx.post(f"{url}/predict", json={}, headers={"X-Request-ID": "mine"})
    assert reply.json()["request_id"] == reply.headers["x-request-id"] == "mine"
    assert httpx.get(f"{url}/ready").json()["status"] == "ready"
    bad = httpx.post(f"{url}/predict", json={"instrument": "OTHER"})
    assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")
    with pytest.raises(ServingError, match="422 This instrument is not served: instrument: got 'OTHER'"):
        predict(url, instrument="OTHER")

    deployments = serve.status().applications[APP_NAME].deployments
    assert set(deployments) == {"ingress", "slot-blue"}
    assert ray.cluster_resources()["CPU"] - ray.available_resources()["CPU"] <= 0.5
    with pytest.raises(ClusterError, match=r"serving\.port=\d+: cannot be bound"):
        serving._refuse_taken_port("127.0.0.1", registered.serving.port)
    serving.stop()
    with pytest.raises(ServingError, match=f"POST {url}/predict: .*refused"):
        predict(url)


def test_replicas_do_not_load_what_they_do_not_need() -> None:
    code = (
        "import sys, marketray.serving.app, marketray.serving.forecaster, marketray.models.xgboost\n"
        "sys.exit(str(sorted({'mlflow', 'torch', 'evidently', 'sklearn'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_no_model_ends_in_a_clear_error(settings: Settings, stopped: None) -> None:
    with pytest.raises(RegistryError, match="no version or alias 'champion'"):
        serving.start(settings)


def test_builder_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"args: got \['port'\]; required: some of \['alias', 'config'\]"):
        build({"port": 1})
    with pytest.raises(SettingsError, match=r"args\.config: got 'no\.yaml'.*required: an absolute path"):
        build({"config": "no.yaml"})
    monkeypatch.setenv("MARKETRAY_CONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(SettingsError, match=r"gone\.yaml: cannot be read"):
        build({})
