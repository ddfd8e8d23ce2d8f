"""Models, replicas and code are replaced, and replicas killed, under a constant load: no request fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from benchmarks.load import Load, Sample, percentile
from marketray.serving.forecaster import Forecaster
from tests.serving.conftest import market  # noqa: F401  # a fixture
from tests.serving.market import Market, registered_home

ROOT = Path(__file__).parents[2]
TOKEN = "chaos"
BLUE, GREEN, DAMAGED = 1, 2, 3
CONNECTIONS = 16

REDEPLOY = """
import sys
from marketray.cluster import connect
from marketray.serving.app import APP_NAME, application
from marketray.settings import load_settings
from ray import serve

settings = load_settings(sys.argv[1])
connect(settings)
serve.run(application(settings), name=APP_NAME, route_prefix="/", blocking=False)
"""


@dataclass
class Service:
    """`marketray serve` in a process of its own, with a Ray of its own."""

    process: subprocess.Popen[bytes]
    url: str
    config: Path
    environment: dict[str, str]
    log: Path

    def put(self, *statuses: int, **changes: Any) -> dict[str, Any]:
        """PUT /traffic; its answer is one of these statuses, by default 200."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.put(f"{self.url}/traffic", json=changes, headers=headers, timeout=90)
        assert answer.status_code in (statuses or (200,)), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def traffic(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/traffic", timeout=10).json()
        return found

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Processes of the deployment's replicas."""
        found = []
        for child in self._children():
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(f"ray::ServeReplica:marketray:{deployment}"):
                found.append(child)
        return found

    def kill(self, deployment: str) -> None:
        """kill -9 one replica."""
        self.replicas(deployment)[0].kill()

    def redeploy(self) -> None:
        """Run the application again, which gives every replica the code of now."""
        before = {p.pid for name in ("ingress", "slot-blue", "slot-green") for p in self.replicas(name)}
        done = subprocess.run(
            [sys.executable, "-c", REDEPLOY, str(self.config)], cwd=ROOT, capture_output=True, text=True,
            env={**self.environment, "RAY_ADDRESS": self._address()}, check=False, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        self.until(lambda: not any(psutil.pid_exists(pid) for pid in before), "the old replicas ended")

    def _address(self) -> str:
        """Of the Ray that `marketray serve` has started."""
        words = [w for child in self._children() for w in child.cmdline() if w.startswith("--gcs-address=")]
        return words[0].partition("=")[2]

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def whole(self, replicas: int) -> None:
        """Wait until every deployment has its replicas and the slots answer."""
        for name in ("ingress", "slot-blue", "slot-green"):
            self.until(
                lambda name=name: len(self.replicas(name)) == replicas, f"{replicas} replicas of {name}"
            )  # type: ignore[misc]
        self.until(lambda: not self.traffic()["unwell"], "no slot is unwell")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, (
                f"{what} not within {seconds} s\n{self.log.read_text()[-3000:]}"
            )
            time.sleep(0.1)


class Burden:
    """A load that runs in a thread until it is taken off."""

    def __init__(self, url: str, rate: float) -> None:
        self.load = Load(f"{url}/predict", headers={"X-Client-Key": "key-{n}"}, keep_bodies=True)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(rate,))
        self._thread.start()

    def _run(self, rate: float) -> None:
        self._loop.run_until_complete(self.load.until(self._stop, CONNECTIONS, rate))

    def take_off(self) -> list[Sample]:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()
        return self.load.samples


@pytest.fixture(scope="module")
def replicas(request: pytest.FixtureRequest) -> int:
    """Replicas of the ingress and of each slot."""
    return int(request.param)


@pytest.fixture(scope="module")
def placed(market: Market, replicas: int, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Settings of a home with bars, two models and a damaged one."""
    home = tmp_path_factory.mktemp("home")
    damaged = home / "damaged"
    shutil.copytree(market.folders["xgboost"], damaged)
    (damaged / "model.ubj").write_bytes(b"no model")
    registered_home(
        home, market, market.folders["xgboost"], market.folders["ar"], damaged, num_replicas=replicas
    )
    return home / "served.yaml"


@pytest.fixture(scope="module")
def service(placed: Path) -> Iterator[Service]:
    port = yaml.safe_load(placed.read_text())["serving"]["port"]
    temporary = tempfile.mkdtemp(prefix="mr-", dir="/tmp")  # sockets need a short path
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_ADDRESS", "MARKETRAY_"))}
    environment |= {"RAY_TMPDIR": temporary, "MARKETRAY_TOKEN": TOKEN, "RAY_raylet_start_wait_time_s": "120"}
    log = placed.parent / "serve.log"
    command = [str(Path(sys.executable).parent / "marketray"), "serve", "--config", str(placed)]
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=sink, stderr=sink)
    made = Service(process, f"http://127.0.0.1:{port}", placed, environment, log)
    made.until(lambda: _ready(made.url), "ready", 180)
    yield made
    process.send_signal(signal.SIGTERM)
    process.wait(90)
    shutil.rmtree(temporary, ignore_errors=True)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def truth(market: Market) -> dict[int, float]:  # noqa: F811
    """What each version forecasts from the last bar, by the model itself."""
    folders = {BLUE: market.folders["xgboost"], GREEN: market.folders["ar"]}
    made = {}
    for version, folder in folders.items():
        forecaster = Forecaster(folder)
        value = forecaster.forecast(forecaster.row(market.bars.drop("outlier"))).predicted_return
        assert value is not None
        made[version] = value
    assert made[BLUE] != made[GREEN]
    return made


def cycle(service: Service) -> None:
    """Deploy green, shift to it, roll back, and take green out."""
    service.put(models={"green": GREEN})
    for green in (10, 50, 100):
        service.put(weights={"blue": 100 - green, "green": green})
        time.sleep(0.3)
    service.put(weights={"blue": 100, "green": 0})
    time.sleep(0.3)
    service.put(models={"green": None})


def figures(samples: list[Sample], truth: dict[int, float]) -> dict[str, Any]:
    """Every answer is right, and none is missing; how long they took."""
    failed = Counter(s.status for s in samples if s.status != 200)
    versions: Counter[int] = Counter()
    for sample in samples:
        if sample.status == 200:
            said = json.loads(sample.body)
            versions[said["model_version"]] += 1
            assert said["predicted_return"] == pytest.approx(truth[said["model_version"]], rel=1e-12)
    seconds: dict[int, list[float]] = defaultdict(list)
    for s in samples:
        seconds[int(s.due)].append(s.seconds * 1e3)
    worst = max(percentile(of, 0.99) for of in seconds.values())
    taken = [s.seconds * 1e3 for s in samples]
    return {
        "requests": len(samples),
        "seconds": round(max(s.due for s in samples)),
        "failed": dict(failed),
        "by_version": dict(versions),
        "p50_ms": round(percentile(taken, 0.5), 1),
        "p99_ms": round(percentile(taken, 0.99), 1),
        "p99_ms_of_the_worst_second": round(worst, 1),
    }


Stage = tuple[str, Callable[[], object]]


def run(service: Service, truth: dict[int, float], work: list[Stage], rate: float, seconds: float) -> None:
    """Do the work under load, for so long at least; nothing fails."""
    burden = Burden(service.url, rate)
    began = time.monotonic()
    stages: dict[str, float] = {}
    try:
        for name, do in work:
            stages[name] = round(time.monotonic() - began, 1)
            do()
        while time.monotonic() - began < seconds:
            time.sleep(0.5)
    finally:
        samples = burden.take_off()
        found = {**figures(samples, truth), "per_second": round(len(samples) / (time.monotonic() - began), 1)}
        print(json.dumps({**found, "stages": stages}))
    assert found["failed"] == {}
    assert set(found["by_version"]) == {BLUE, GREEN}


def both_slots(service: Service) -> None:
    """Half of the requests to each slot."""
    service.put(models={"green": GREEN})
    service.put(weights={"blue": 50, "green": 50})


def _damaged(service: Service) -> None:
    before = service.traffic()
    said = service.put(409, 422, 503, models={"green": DAMAGED})
    assert "cannot serve version 3" in said["detail"]
    after = service.traffic()
    assert {k: after[k] for k in ("weights", "models")} == {k: before[k] for k in ("weights", "models")}


def _killed_at_load(service: Service) -> None:
    """The replicas of the slot are replaced while they load; the change is made all the same."""
    service.put(weights={"blue": 100, "green": 0})
    service.put(models={"green": None})
    changed = threading.Thread(target=service.put, kwargs={"models": {"green": GREEN}})
    changed.start()
    time.sleep(0.2)
    service.kill("slot-green")
    changed.join(90)
    assert service.traffic()["models"] == {"blue": BLUE, "green": GREEN}
    service.put(weights={"blue": 50, "green": 50})


def _ingress_killed(service: Service, rate: float) -> None:
    """Only what is under way in the killed process can be lost."""
    burden = Burden(service.url, rate)
    time.sleep(3)
    service.kill("ingress")
    time.sleep(5)
    service.whole(2)
    samples = burden.take_off()
    lost = Counter(s.status for s in samples if s.status != 200)
    print(json.dumps({"ingress kill -9": {"requests": len(samples), "lost": dict(lost)}}))
    assert sum(lost.values()) <= CONNECTIONS


@pytest.mark.timeout(900)  # a busy machine; less than a minute on a quiet one
@pytest.mark.parametrize("replicas", [2], indirect=True)
def test_nothing_is_dropped_while_models_change_and_a_replica_dies(
    service: Service, truth: dict[int, float]
) -> None:
    work: list[Stage] = [
        ("cycle", lambda: cycle(service)),
        ("a version that cannot be loaded", lambda: _damaged(service)),
        ("both slots", lambda: both_slots(service)),
        ("kill -9 of a slot's replica", lambda: service.kill("slot-blue")),
        ("whole again", lambda: service.whole(2)),
    ]
    run(service, truth, work, rate=50, seconds=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("replicas", [2], indirect=True)
def test_nothing_is_dropped_at_200_requests_a_second(service: Service, truth: dict[int, float]) -> None:
    work: list[Stage] = [
        *((f"cycle {n + 1}", lambda: cycle(service)) for n in range(20)),
        ("a version that cannot be loaded", lambda: _damaged(service)),
        ("both slots", lambda: both_slots(service)),
        ("kill -9 of a slot's replica", lambda: service.kill("slot-blue")),
        ("whole again", lambda: service.whole(2)),
        ("kill -9 of a slot's replica while it loads", lambda: _killed_at_load(service)),
        ("whole once more", lambda: service.whole(2)),
        ("redeploy", service.redeploy),
        ("whole at last", lambda: service.whole(2)),
    ]
    run(service, truth, work, rate=200, seconds=190)
    _ingress_killed(service, 200)
