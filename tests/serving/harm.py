"""What may happen to a model that answers requests: it breaks, its process dies, hangs or is slow."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import psutil

from marketray.serving.app import APP_NAME
from tests.serving.market import Market, bars_json

__all__ = ["HARMS", "Harm", "brittle", "jump"]

Harm = Callable[[psutil.Process], object]


def brittle(folder: Path, copy: Path) -> Path:
    """An autoregression that answers infinity after a return of more than 0.5 %, and 0 else.

    Its last lag's deviation is next to nothing, as over training rows where hardly anything moved.
    """
    shutil.copytree(folder, copy)
    path = copy / "coefficients.json"
    document = json.loads(path.read_text())
    mean, _, _ = document["terms"]["return_1_lag_0"]
    document["terms"]["return_1_lag_0"] = [mean, 0.005 / 1.797e308, 1e-320]
    path.write_text(json.dumps(document))
    return copy


@contextlib.contextmanager
def jump(url: str, token: str, market: Market) -> Iterator[None]:
    """A live bar after the market's last one, 1 % higher."""
    last = market.bars.tail(1)
    (bar,) = bars_json(last)
    prices = ("open", "high", "low", "close", "bid", "ask")
    bar |= {name: last[name][0] * 1.01 for name in prices}
    bar["time"] = (last["time"][0] + timedelta(minutes=1)).isoformat()
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/bars", json={"bars": [bar]}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    yield


def _slow(process: psutil.Process) -> None:
    process.suspend()
    time.sleep(1.5)
    process.resume()


HARMS: dict[str, Harm] = {"stopped": psutil.Process.suspend, "slow": _slow, "killed": psutil.Process.kill}
"""By name; the last costs a restart."""


@contextlib.contextmanager
def harmed(slot: str, harm: Harm) -> Iterator[None]:
    """Harm the slot's process, and each that replaces it, again and again within the block."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            _each(slot, harm)
            over.wait(0.1)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        try:
            yield
        finally:
            over.set()
            done.result(10)
            _each(slot, psutil.Process.resume)


def _each(slot: str, what: Harm) -> None:
    """Do it to the processes of the slot's replicas in this process's own Ray."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(child.cmdline()).startswith(f"ray::ServeReplica:{APP_NAME}:slot-{slot}"):
                what(child)
