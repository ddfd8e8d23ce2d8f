"""A Ray head of its own, as `ray start --head` makes it, for jobs and deployments."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).parent / "ray")
SERVE = str(Path(sys.executable).parent / "serve")


@dataclass(frozen=True)
class Head:
    """Addresses of a running head."""

    dashboard: str
    environment: dict[str, str]

    def submit(
        self, *entrypoint: str, home: Path, timeout_seconds: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir .` of the repository, with MARKETRAY_HOME set for the job."""
        environment = f'{{"env_vars": {{"MARKETRAY_HOME": "{home}"}}}}'
        command = [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        command += ["--runtime-env-json", environment, "--", *entrypoint]
        for _ in range(30):  # the dashboard answers some seconds before the agent that starts jobs
            done = self._run(command, timeout_seconds)
            if "No available agent to submit job" not in done.stdout:
                break
            time.sleep(1)
        return done

    def deploy(self, file: Path) -> subprocess.CompletedProcess[str]:
        """`serve deploy` of this file."""
        return self._run([SERVE, "deploy", "--address", self.dashboard, str(file)], 120)

    def _run(self, command: list[str], timeout_seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def ray_head() -> Iterator[Head]:
    """A head on free ports with two CPUs; its processes are ended by their ids."""
    gcs, dashboard, client, agent = _free_ports(4)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_ADDRESS", "MARKETRAY_"))}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(RAY).parent}{os.pathsep}{environment['PATH']}"  # an activated environment
    options = {
        "--port": gcs,
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": dashboard,
        "--ray-client-server-port": client,
        "--dashboard-agent-listen-port": agent,
        "--temp-dir": folder,
        "--num-cpus": 2,
    }
    arguments = [f"{k}={v}" for k, v in options.items()]
    log = Path(folder) / "start.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [RAY, "start", "--head", "--block", *arguments], env=environment, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        _await(url, process, log)
        yield Head(url, environment)
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/api/jobs/", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    pytest.fail(f"ray start: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    _, alive = psutil.wait_procs(started, timeout=5)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=5)
