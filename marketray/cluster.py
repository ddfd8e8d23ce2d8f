"""Joining a Ray cluster, or starting a local one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from marketray.errors import ClusterError

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["connect", "prepare_environment", "refuse_node_local_store"]


def prepare_environment() -> None:
    """Set what Ray reads at start-up, unless the user has set it.

    A local ``ray.init`` writes an auth token file that would switch token auth on for a later
    ``ray start --head``; the mode is therefore always explicit.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def connect(settings: Settings) -> str:
    """Join the cluster of RAY_ADDRESS or of the current job, else start Ray here; return the dashboard's URL.

    Nothing happens where this process is already connected.

    Raises
    ------
    ClusterError
        The cluster cannot be reached, or it has several live nodes while the lake or the tracking
        server is on one node's own disk.
    """
    prepare_environment()
    import ray

    if not ray.is_initialized():
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False)
            else:
                ray.init(address="local", log_to_driver=False, include_dashboard=True)
        except (ConnectionError, RuntimeError, ValueError) as e:
            msg = f"Ray cannot be reached at RAY_ADDRESS={os.environ.get('RAY_ADDRESS', 'local')}: {e}"
            raise ClusterError(msg, hint="start one with `ray start --head`, or unset RAY_ADDRESS") from e
    _refuse_node_local_state(settings)
    url = ray._private.worker._global_node.webui_url  # type: ignore[attr-defined]
    return f"http://{url}" if url else "not started"


def refuse_node_local_store(settings: Settings) -> None:
    """Refuse to serve from several nodes with a store that each of them would have for itself.

    A mounted folder does not help here: sqlite's locks do not hold between machines.

    Raises
    ------
    ClusterError
        The connected cluster has several live nodes and serving.store_uri is sqlite.
    """
    live = _live_nodes()
    if live > 1 and settings.store_uri.startswith("sqlite"):
        msg = (
            f"the cluster has {live} live nodes but serving.store_uri={settings.store_uri} is on one node's "
            "disk; required: postgresql://…"
        )
        raise ClusterError(msg, hint="name a PostgreSQL that every node can reach")


def _live_nodes() -> int:
    import ray

    return sum(n["Alive"] for n in ray.nodes())  # type: ignore[no-untyped-call]


def _refuse_node_local_state(settings: Settings) -> None:
    live = _live_nodes()
    if live <= 1:
        return
    local = [
        f"{name}={value}"
        for name, value in (("lake", settings.lake_uri), ("tracking.uri", settings.tracking_uri))
        if "://" not in value or value.startswith(("file:", "sqlite:"))
    ]
    if local and not os.environ.get("MARKETRAY_SHARED_HOME"):
        msg = f"the cluster has {live} live nodes but {' and '.join(local)} is on one node's disk"
        raise ClusterError(
            msg,
            hint="use s3://… and http://… addresses, or set MARKETRAY_SHARED_HOME=1 if every node mounts "
            "the same folder there",
        )
