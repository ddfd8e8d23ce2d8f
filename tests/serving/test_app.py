"""The real Serve application: from the registry to an answer over HTTP, and its refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from websockets.sync.client import connect

from marketray.errors import ClusterError, RegistryError, ServingError, SettingsError
from marketray.serving import run as serving
from marketray.serving.app import APP_NAME, build
from marketray.serving.client import predict
from marketray.serving.http.auth import TOKEN_VARIABLE
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market, bars_json, registered_home

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def registered(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with bars and the XGBoost model registered as champion; a free port to serve at."""
    return registered_home(tmp_path_factory.mktemp("home"), market, market.folders["xgboost"])


@pytest.fixture
def stopped(ray_local: None) -> Iterator[None]:
    """Ray, and no service left after the test."""
    yield
    serving.stop()


def test_champion_is_served_until_stopped(
    registered: Settings, market: Market, stopped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray import serve

    monkeypatch.setenv(TOKEN_VARIABLE, "secret-9")
    url = serving.start(registered)
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
    assert set(deployments) == {"ingress", "slot-blue", "slot-green", "control"}
    assert ray.cluster_resources()["CPU"] - ray.available_resources()["CPU"] <= 0.5
    with pytest.raises(ClusterError, match=r"serving\.port=\d+: cannot be bound"):
        serving._refuse_taken_port("127.0.0.1", registered.serving.port)
    _is_changed_by_who_has_the_token(url, market)
    _survives_a_killed_slot(url)
    serve.run(_other(), name="other", route_prefix="/other")
    monkeypatch.setattr(serving, "time", SimpleNamespace(sleep=_interrupt))
    with serving.until_interrupted():
        serving.wait()  # ends by Ctrl-C, which takes the service down, but not another's application
    assert set(serve.status().applications) == {"other"}
    serving.wait()  # nothing to wait for
    monkeypatch.undo()
    with pytest.raises(ServingError, match=f"POST {url}/predict: status 404 without JSON"):
        predict(url)
    serve.delete("other")
    _is_taken_down_where_it_is_not_ready(registered, tmp_path)
    with pytest.raises(ServingError, match=f"POST {url}/predict: .*refused"):
        predict(url)


def _is_changed_by_who_has_the_token(url: str, market: Market) -> None:
    """The traffic, and the bars, of which subscribers are told."""
    change = {"sticky": "instrument"}
    assert httpx.put(f"{url}/traffic", json=change).status_code == 401
    token = {"Authorization": "Bearer secret-9"}
    with connect(f"{url.replace('http', 'ws')}/ws/market-stream?last_id=0") as stream:
        assert json.loads(stream.recv(timeout=60))["kind"] == "forecast"  # found by who looks for subscribers
        traffic = httpx.put(f"{url}/traffic", json=change, headers=token, timeout=60)
        assert traffic.json()["sticky"] == "instrument", traffic.text
        assert traffic.json()["answering"] == {"blue": 1, "green": None}
        (bar,) = bars_json(market.bars.tail(1))
        bar["time"] = (market.bars["time"][-1] + timedelta(minutes=1)).isoformat()
        taken = httpx.post(f"{url}/bars", json={"bars": [bar, bar]}, headers=token, timeout=60).json()
        assert (taken["taken"], taken["known"]) == (1, 1), taken
        told = [json.loads(stream.recv(timeout=60)) for _ in range(2)]
    assert [(event["id"], event["kind"]) for event in told] == [(2, "traffic"), (3, "forecast")]
    assert told[-1]["data"]["prediction"] == taken["forecast"]["prediction"] == predict(url)["prediction"]


def _interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def _other() -> Any:
    """Another application, of somebody else."""
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Other:
        def __call__(self) -> str:
            return "other"

    return Other.bind()


def _is_taken_down_where_it_is_not_ready(registered: Settings, tmp_path: Path) -> None:
    from ray import serve

    empty = registered.model_copy(update={"lake": str(tmp_path / "empty")})
    with pytest.raises(ServingError, match="the service is not ready: got 1 bars; required: at least"):
        serving.start(empty)
    assert serve.status().applications == {}


def _survives_a_killed_slot(url: str) -> None:
    """While the slot has no replica every answer is a 503 problem; then forecasts come back."""
    import ray
    from ray.util import list_named_actors

    def replicas() -> list[str]:
        names = [a["name"] for a in list_named_actors(all_namespaces=True)]
        return [n for n in names if n.startswith(f"SERVE_REPLICA::{APP_NAME}#slot-blue#")]

    (name,) = replicas()
    ray.kill(ray.get_actor(name, namespace="serve"))
    deadline = time.monotonic() + 60
    good = 0
    while good < 20 or replicas() in ([], [name]):
        assert time.monotonic() < deadline
        try:
            answer = httpx.post(f"{url}/predict", json={}, timeout=3)
        except httpx.ReadTimeout:  # it waits for the dead replica; the others need not
            good = 0
            continue
        good = good + 1 if answer.status_code == 200 else 0
        if answer.status_code != 200:
            assert answer.status_code in (503, 504), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


def test_replicas_do_not_load_what_they_do_not_need() -> None:
    code = (
        "import sys, marketray.serving.app, marketray.serving.forecaster, marketray.models.xgboost\n"
        "sys.exit(str(sorted({'mlflow', 'torch', 'evidently', 'sklearn'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def serve_config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "serve_configs" / "champion.yaml").read_text())
    return loaded


def test_champion_yaml_builds_the_application(registered: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema.model_validate(serve_config()).applications
    assert (application.name, application.import_path) == (APP_NAME, "marketray.serving.app:build")
    config = registered.home / "served.yaml"
    monkeypatch.setenv("MARKETRAY_CONFIG", str(config))
    assert isinstance(build(application.args), Application)
    assert isinstance(build({**application.args, "config": str(config), "blue": 1}), Application)
    with pytest.raises(RegistryError, match="no version or alias 'challenger'"):
        build({"blue": "challenger"})


@pytest.mark.slow
def test_serve_run_with_champion_yaml(registered: Settings, tmp_path: Path) -> None:
    config = registered.home / "served.yaml"
    described = serve_config()
    described["http_options"]["port"] = port = registered.serving.port
    (tmp_path / "champion.yaml").write_text(yaml.safe_dump(described))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")}
    environment["MARKETRAY_CONFIG"] = str(config)
    with (tmp_path / "log").open("w") as log:
        command = [str(Path(sys.executable).parent / "serve"), "run", str(tmp_path / "champion.yaml")]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = predict(f"http://127.0.0.1:{port}", instrument=INSTRUMENT)
                break
            except ServingError:
                shown = (tmp_path / "log").read_text()
                assert process.poll() is None, shown
                assert time.monotonic() < deadline, shown
                time.sleep(0.5)
        assert answer["model_version"] == 1
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_no_model_ends_in_a_clear_error(settings: Settings, stopped: None) -> None:
    with pytest.raises(RegistryError, match="no version or alias 'champion'"):
        serving.start(settings)


def test_builder_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"args: got \['port'\]; required: some of \['config', 'blue'"):
        build({"port": 1})
    with pytest.raises(SettingsError, match=r"args\.config: got 'no\.yaml'.*required: an absolute path"):
        build({"config": "no.yaml"})
    monkeypatch.setenv("MARKETRAY_CONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(SettingsError, match=r"gone\.yaml: cannot be read"):
        build({})
