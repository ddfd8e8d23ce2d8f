"""The Ray Serve application: an ingress in front of slots.

The ingress holds one handle a slot, so that a second slot and a split of the traffic need no other
shape. Names on the dashboard: application ``marketray``, deployments ``ingress`` and ``slot-<name>``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from marketray.errors import SettingsError
from marketray.serving.api import create_api
from marketray.serving.problems import ProblemError, problem
from marketray.serving.schemas import Problem
from marketray.serving.slot import Slot, SlotConfig
from marketray.settings import load_settings

if TYPE_CHECKING:
    import polars as pl
    from fastapi import FastAPI
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    from marketray.serving.slot import SlotStatus
    from marketray.settings import Settings

__all__ = ["APP_NAME", "Ingress", "application", "build"]

APP_NAME = "marketray"

_PROBE_SECONDS = 2.0
_PREDICT_SECONDS = 10.0
_HEALTH_SECONDS = 1.0  # a dead replica is noticed and replaced after this; Serve's default is 10
_ACTOR = {"num_cpus": 0.1}  # small, so that a laptop's two CPUs hold the application beside other work


@serve.ingress()
class Ingress:
    """HTTP in front of the slots; one slot answers everything."""

    def __init__(self, slots: dict[str, DeploymentHandle[Slot]], active: str, instrument: str) -> None:
        self._slots = slots
        self._active = active
        self._instrument = instrument

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self, self._instrument)

    async def status(self) -> SlotStatus:
        """Status of the active slot."""
        status: SlotStatus = await self._call("status", _PROBE_SECONDS, 503)
        return status

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> dict[str, Any]:
        """Forecast of the active slot."""
        answer = await self._call("predict", _PREDICT_SECONDS, 504, instrument, bars)
        if isinstance(answer, Problem):
            raise ProblemError(answer)
        return dict(answer)

    async def _call(self, method: str, seconds: float, late: int, *arguments: Any) -> Any:
        handle = getattr(self._slots[self._active], method)
        try:
            return await asyncio.wait_for(handle.remote(*arguments), seconds)
        except TimeoutError as e:
            detail = f"slot {self._active} did not answer within {seconds:g} s"
            raise ProblemError(problem("slot-late", late, "No answer in time", detail)) from e
        except RayTaskError:  # a bug inside the slot: 500, logged
            raise
        except (RayError, RayServeException) as e:
            detail = f"slot {self._active} has no replica that can answer ({type(e).__name__})"
            raise ProblemError(problem("slot-unavailable", 503, "No replica", detail)) from e


def application(settings: Settings, alias: str = "champion") -> Application:
    """The application for the version behind `alias` (or a version number as text).

    The registry is read here, once; replicas get the model's folder and never talk to the tracking server.

    Raises
    ------
    RegistryError
        There is no such version, or the tracking server cannot be reached.
    """
    from marketray.registry import Registry

    registry = Registry(settings)
    version = registry.resolve(alias)
    folder = registry.download(version.version)
    config = SlotConfig("blue", str(folder), settings.model_name, version.version, settings)
    return _bind([config], settings)


def build(args: dict[str, Any]) -> Application:
    """Builder for Serve's YAML files: ``import_path: marketray.serving.app:build``.

    Parameters
    ----------
    args:
        ``config``: absolute path of a settings file (default: the environment variable MARKETRAY_CONFIG,
        else the default settings). ``alias``: alias or version to serve (default ``champion``).

    Raises
    ------
    SettingsError
        A key is unknown, or the settings file cannot be used.
    """
    unknown = sorted(set(args) - {"config", "alias"})
    if unknown:
        msg = f"args: got {unknown}; required: some of ['alias', 'config']"
        raise SettingsError(msg, hint="see serve_configs/champion.yaml")
    config = args.get("config") or os.environ.get("MARKETRAY_CONFIG")
    if config is not None and not Path(config).is_absolute() and not Path(config).exists():
        msg = f"args.config: got {config!r}, which is not in {Path.cwd()}; required: an absolute path"
        raise SettingsError(
            msg, hint="Serve builds applications in a worker with a working directory of its own"
        )
    return application(load_settings(config), str(args.get("alias") or "champion"))


def _bind(configs: list[SlotConfig], settings: Settings) -> Application:
    options: dict[str, Any] = {
        "num_replicas": settings.serving.num_replicas,
        "ray_actor_options": _ACTOR,
        "max_ongoing_requests": 100,
        "health_check_period_s": _HEALTH_SECONDS,
    }
    slots = {c.slot: serve.deployment(name=f"slot-{c.slot}", **options)(Slot).bind(c) for c in configs}
    ingress = serve.deployment(name="ingress", **options)(Ingress)
    bound: Application = ingress.bind(slots, configs[0].slot, settings.instrument)
    return bound
