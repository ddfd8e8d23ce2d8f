"""A real PostgreSQL and a real MLflow server over it, for tests that must hold on both kinds of database."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg

_DEBIAN = Path("/usr/lib/postgresql")
_STARTING_SECONDS = 180.0


def postgres_programs() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, on the path or where Debian puts them; None: not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return folders[-1].parent if folders else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A throw-away cluster on a free port of this machine; gives the address of its database."""
    user = _ordinary_user()
    folder = Path(tempfile.mkdtemp(prefix="registry-"))  # short: its sockets' paths are limited
    data, port = folder / "data", _free_port()
    if user is not None:
        shutil.chown(folder, user)
    _run([programs / "initdb", "-D", data, "-U", "registry", "-A", "trust", "-E", "UTF8", "-N"], user)
    options = ["listen_addresses=127.0.0.1", f"port={port}", "fsync=off", f"unix_socket_directories={folder}"]
    command = [str(programs / "postgres"), "-D", str(data)]
    command += [part for option in options for part in ("-c", option)]
    server = subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"registry@127.0.0.1:{port}/postgres"
    try:
        _wait(lambda: _answers(address), server)
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        server.wait(timeout=30)
        shutil.rmtree(folder)


@contextmanager
def registry_server(folder: Path, address: str) -> Iterator[str]:
    """``mlflow server`` over the PostgreSQL at `address`; `folder` takes artefacts; gives its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"postgresql+psycopg://{address}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder)]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _healthy(url), server)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the group is its own: workers end with it
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=15)


def _ordinary_user() -> str | None:
    """PostgreSQL refuses to run as root; whom to run it as then."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _run(command: list[str | Path], user: str | None) -> None:
    subprocess.run([str(part) for part in command], user=user, check=True, capture_output=True, cwd="/")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        psycopg.connect(f"postgresql://{address}", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _wait(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _STARTING_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"{server.args!r} ended with {server.returncode}")
        if ready():
            return
        time.sleep(0.1)
    raise TimeoutError(f"{server.args!r} does not answer")
