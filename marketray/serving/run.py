"""Start and stop the service on the connected Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING

from marketray.errors import ClusterError, ServingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.serve import Application

    from marketray.settings import Settings

__all__ = ["deploy", "start", "stop", "until_interrupted", "wait"]

logger = logging.getLogger(__name__)

_READY_SECONDS = 60.0


def start(settings: Settings, alias: str = "champion") -> str:
    """Serve the version behind `alias` and return the service's URL once it is ready.

    Raises
    ------
    RegistryError
        There is no such version.
    ClusterError
        The port is taken, or Serve cannot start the application.
    ServingError
        The application runs but is not ready: the model or the bars cannot be used.
    """
    from marketray.serving.app import application

    return deploy(application(settings, {"blue": alias}), settings)


def deploy(app: Application, settings: Settings) -> str:
    """Run a built application at the settings' host and port; see `start`."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from marketray.serving.app import APP_NAME

    host, port = settings.serving.host, settings.serving.port
    running = _serve_runs()
    if not running:
        _refuse_taken_port(host, port)
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(app, name=APP_NAME, route_prefix="/", blocking=False)
    except (RuntimeError, RayServeException) as e:
        with contextlib.suppress(RuntimeError, RayServeException):
            stop()
        reason = str(e).strip().splitlines()[-1]
        msg = f"Ray Serve could not start {APP_NAME}: {reason}"
        raise ClusterError(msg, hint="`serve status` and the dashboard's Serve page show the cause") from e
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  # compared, not bound
    url = f"http://{reachable}:{port}"
    try:
        _await_ready(url)
    except ServingError:
        stop()
        raise
    return url


def stop() -> None:
    """Take the application down, and Serve with it where no other application is left."""
    from ray import serve

    from marketray.serving.app import APP_NAME

    if not _serve_runs():
        return
    applications = set(serve.status().applications)
    if applications <= {APP_NAME}:
        serve.shutdown()  # type: ignore[no-untyped-call]
    else:
        serve.delete(APP_NAME)


def wait(poll_seconds: float = 1.0) -> None:
    """Block until the application is taken down."""
    from ray import serve

    from marketray.serving.app import APP_NAME

    while APP_NAME in serve.status().applications:
        time.sleep(poll_seconds)


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM, also while the service starts, stop the service and end the block.

    Ray's own handler would abort the process; so enter the block after the cluster was joined.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end in KeyboardInterrupt
    try:
        yield
    except KeyboardInterrupt:
        logger.info("stopping the service")
        stop()


def _serve_runs() -> bool:
    from ray import serve

    return bool(serve.status().proxies)


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            msg = f"serving.host={host!r}, serving.port={port}: cannot be bound ({e.strerror or e})"
            raise ClusterError(msg, hint="choose another serving.port, or stop what listens there") from e


def _await_ready(url: str) -> None:
    import httpx

    from marketray.serving.schemas import kind_of

    deadline = time.monotonic() + _READY_SECONDS
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}/ready", timeout=5.0)
        except httpx.TransportError as e:
            reason = str(e)
        else:
            if answer.is_success:
                return
            content = answer.json() if "json" in answer.headers.get("content-type", "") else {}
            reason = content.get("detail", answer.text)
            if kind_of(content.get("type", "")) in ("no-model", "no-state", "stale-bars"):
                msg = f"the service is not ready: {reason}"
                raise ServingError(msg, hint=content.get("hint"))
        time.sleep(0.1)
    msg = f"{url}/ready: not ready within {_READY_SECONDS:g} s ({reason})"
    raise ServingError(
        msg,
        hint="`serve status` shows the cause; a Serve that ran before keeps its own host and port until "
        "`serve shutdown`",
    )
