"""``ray job submit`` of the whole pipeline against a cluster started with ``ray start --head``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ROOT, Shell

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(shell: Shell) -> Iterator[dict[str, str]]:
    """The environment that reaches a head node with two CPUs; its processes end by pid afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))  # Ray's socket paths must be short
    port, dashboard = free_port(), free_port()
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
    address = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    with (folder / "head.log").open("w") as sink:
        head = subprocess.Popen(command, env=shell.environment(), stdout=sink, stderr=sink)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", dashboard), timeout=1).close()
            break
        except OSError:
            assert head.poll() is None, (folder / "head.log").read_text()[-3000:]
            time.sleep(0.3)
    yield {**shell.environment(), **address}
    victims = [head, *psutil.Process(head.pid).children(recursive=True)]
    for victim in victims:
        try:
            os.kill(victim.pid, 15)
        except ProcessLookupError:
            continue
    head.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def submit(cluster: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ray"), "job", "submit", "--working-dir", str(ROOT), "--"]
    command += [sys.executable, "jobs/pipeline.py", *arguments]
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=False)


def test_the_pipeline_job_succeeds_and_its_model_is_listed_from_elsewhere(
    cluster: dict[str, str], shell: Shell, first_run: Any
) -> None:
    done = submit(cluster, "--config", str(shell.config))
    assert done.returncode == 0, done.stdout[-4000:]
    assert "succeeded" in done.stdout
    assert [m["version"] for m in shell.json("models", "list")] == [1]


def test_the_job_fails_when_a_stage_fails(cluster: dict[str, str], shell: Shell) -> None:
    broken = shell.home / "broken.yaml"
    broken.write_text(
        "name: broken\ninstrument: BROKEN\nsource: {kind: files, paths: [/absent/bars.csv], timezone: UTC}\n"
    )
    done = submit(cluster, "--config", str(broken))
    assert done.returncode != 0
    assert "/absent/bars.csv" in done.stdout
    assert "Traceback" not in done.stdout
