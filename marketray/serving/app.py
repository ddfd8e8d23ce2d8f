"""The Ray Serve application: an ingress in front of two slots, and what changes the traffic between them.

Names on the dashboard: application ``marketray``, deployments ``ingress``, ``slot-blue``, ``slot-green`` and
``control``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from marketray.cluster import refuse_node_local_store
from marketray.errors import MarketrayError, RegistryError, SettingsError
from marketray.serving.control import Control
from marketray.serving.http.auth import Token
from marketray.serving.ingress import Ingress
from marketray.serving.slot import Slot
from marketray.serving.traffic import SLOTS, Traffic, hundredths
from marketray.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.serve import Application

    from marketray.settings import Settings

__all__ = ["APP_NAME", "application", "build"]

APP_NAME = "marketray"

_HEALTH_SECONDS = 1.0  # a dead replica is noticed and replaced after this; Serve's default is 10
_HANG_SECONDS = 10.0  # one that hangs, after three looks that wait so long; Serve's default is 30
_ACTOR = {"num_cpus": 0.1}  # small, so that a laptop's two CPUs hold the application beside other work


@ray.remote(num_cpus=0, max_retries=2)
def _download(settings: Settings, version: int) -> str:
    """A version's files on this node, fetched in a process of its own: the registry's client is heavy."""
    from marketray.registry import Registry

    return str(Registry(settings).download(version))


class ServedSlot(Slot):
    """A slot whose replicas fetch their models by a task on their own node."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings, lambda version: _fetch(settings, version))


def _fetch(settings: Settings, version: int) -> Path:
    """The version's folder; raises a MarketrayError, whatever became of the task."""
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    try:
        return Path(ray.get(_download.options(scheduling_strategy=here).remote(settings, version)))
    except RayError as e:
        if isinstance(e, RayTaskError) and isinstance(e.cause, MarketrayError):
            raise e.cause from e
        reason = str(e).strip().splitlines()[-1]
        msg = f"version {version} was not fetched: {type(e).__name__}: {reason}"
        raise RegistryError(
            msg, hint="it is tried again; the dashboard's task _download has the cause"
        ) from e


def application(
    settings: Settings,
    models: Mapping[str, str | int] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Application:
    """The application. Its traffic is declared in the store: a split that was set since then stays in force
    until something else is declared.

    Parameters
    ----------
    models:
        Alias or version number (also as text) by slot; default: the champion in blue.
    weights:
        Percent of the requests by slot, to 1/100; default: all to the first slot that has a model.

    Raises
    ------
    RegistryError
        There is no such version, or the tracking server cannot be reached.
    SettingsError
        The traffic is none, see `marketray.serving.traffic.Traffic`.
    ClusterError
        The cluster has several nodes and the store is on one node's disk.
    """
    from marketray.registry import Registry
    from marketray.serving.store.database import Database
    from marketray.serving.store.traffic_log import TrafficLog

    if ray.is_initialized():
        refuse_node_local_store(settings)
    registry = Registry(settings)
    versions: dict[str, int | None] = dict.fromkeys(SLOTS)
    for slot, which in (models or {"blue": "champion"}).items():
        version = registry.resolve(which).version
        registry.download(version)
        versions[slot] = version
    first = next(s for s in SLOTS if versions[s] is not None)
    shares = {first: 100.0} if weights is None else weights
    traffic = Traffic(weights=hundredths(shares), models=versions)
    database = Database(settings.store_uri)
    database.create()
    TrafficLog(database).declare(traffic, who="deployment")
    return _bind(settings)


def build(args: dict[str, Any]) -> Application:
    """Builder for Serve's YAML files: ``import_path: marketray.serving.app:build``.

    Parameters
    ----------
    args:
        ``config``: absolute path of a settings file (default: the environment variable MARKETRAY_CONFIG,
        else the default settings). ``blue``, ``green``: alias or version that stands in the slot (default:
        ``blue: champion``). ``weights``: percent of the requests by slot (default: all to blue).

    Raises
    ------
    SettingsError
        A key is unknown, or the settings file cannot be used.
    """
    known = ["config", *SLOTS, "weights"]
    unknown = sorted(set(args) - set(known))
    if unknown:
        msg = f"args: got {unknown}; required: some of {known}"
        raise SettingsError(msg, hint="see serve_configs/champion.yaml and blue_green.yaml")
    config = args.get("config") or os.environ.get("MARKETRAY_CONFIG")
    if config is not None and not Path(config).is_absolute() and not Path(config).exists():
        msg = f"args.config: got {config!r}, which is not in {Path.cwd()}; required: an absolute path"
        raise SettingsError(
            msg, hint="Serve builds applications in a worker with a working directory of its own"
        )
    models = {slot: args[slot] for slot in SLOTS if args.get(slot) is not None}
    return application(load_settings(config), models or None, args.get("weights"))


def _bind(settings: Settings) -> Application:
    options: dict[str, Any] = {
        "num_replicas": settings.serving.num_replicas,
        "ray_actor_options": _ACTOR,
        "max_ongoing_requests": 100,
        "health_check_period_s": _HEALTH_SECONDS,
        "health_check_timeout_s": _HANG_SECONDS,
    }
    slots = {s: serve.deployment(name=f"slot-{s}", **options)(ServedSlot).bind(s, settings) for s in SLOTS}
    alone = {**options, "num_replicas": 1}
    control = serve.deployment(name="control", **alone)(Control).bind(settings, APP_NAME)
    ingress = serve.deployment(name="ingress", **options)(serve.ingress()(Ingress))
    bound: Application = ingress.bind(slots, control, settings, Token.of())
    return bound
