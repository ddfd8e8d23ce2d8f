"""Everything of the service that is not on a request's path: the registry, and changes of the traffic."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from marketray.errors import ServingError
from marketray.serving.store.database import Database
from marketray.serving.store.traffic_log import TrafficLog
from marketray.serving.traffic import SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketray.serving.store.traffic_log import Entry
    from marketray.serving.traffic import Traffic
    from marketray.settings import Settings

__all__ = ["Control"]

logger = logging.getLogger(__name__)

_LOAD_SECONDS = 60.0


class Control:
    """One replica. It holds nothing that the store does not hold, so it may die at any time."""

    def __init__(self, settings: Settings, application: str) -> None:
        self._settings = settings
        self._application = application
        database = Database(settings.store_uri)
        self._log = TrafficLog(database)
        self._changing = asyncio.Lock()

    async def change(
        self,
        who: str,
        *,
        weights: Mapping[str, int] | None = None,
        models: Mapping[str, str | int | None] | None = None,
        **more: Any,
    ) -> Entry:
        """Change the traffic and return when every replica acts on it.

        A slot whose model changes gets it first and its new weight when it can answer with it; where it
        cannot, the traffic stays what it was.

        Parameters
        ----------
        who:
            For the log.
        weights:
            1/100 % by slot.
        models:
            Version, number as text or alias by slot; None empties it. Slots left out keep theirs.
        more:
            `shadow`, `sticky`, see `marketray.serving.traffic.Traffic`.

        Raises
        ------
        RegistryError, SettingsError, StoreError
            There is no such version, the traffic is none, the log cannot be written.
        ServingError
            A slot cannot serve its new model.
        """
        async with self._changing:
            before = await asyncio.to_thread(self._log.current)
            assert before is not None
            wanted = await self._wanted(before.traffic, weights, models, more)
            fresh = [s for s in SLOTS if wanted.models[s] not in (None, before.traffic.models[s])]
            entry = before
            if fresh:
                loading = _while_loading(before.traffic, wanted)
                entry = await self._append(loading, who, "load", f"load {_told(wanted, fresh)}", entry.seq)
                try:
                    await self._await_loaded(wanted, fresh)
                except ServingError as e:
                    await self._append(before.traffic, who, "undo", e.message, entry.seq)
                    raise
            if not fresh or wanted != entry.traffic:
                entry = await self._append(wanted, who, "set", "", entry.seq)
            return entry

    async def _wanted(
        self,
        now: Traffic,
        weights: Mapping[str, int] | None,
        models: Mapping[str, str | int | None] | None,
        more: Mapping[str, Any],
    ) -> Traffic:
        changes = dict(more)
        if models is not None:
            found = {
                s: None if m is None else await asyncio.to_thread(self._version, m) for s, m in models.items()
            }
            changes["models"] = {**now.models, **found}
        if weights is not None:
            changes["weights"] = dict(weights)
        return now.changed(**changes)

    def _version(self, which: str | int) -> int:
        """The version with this number or alias; its files are on this machine then."""
        from marketray.registry import Registry

        registry = Registry(self._settings)
        found = registry.resolve(which)
        registry.download(found.version)
        return found.version

    async def _append(self, traffic: Traffic, who: str, action: str, reason: str, seq: int) -> Entry:
        """Write the traffic to the log, then tell everybody."""
        entry = await asyncio.to_thread(
            self._log.append, traffic, who=who, action=action, reason=reason, expect_seq=seq
        )
        await self.tell("ingress")
        return entry

    async def _await_loaded(self, wanted: Traffic, slots: list[str]) -> None:
        """Until all replicas of the slots answer with their new version."""
        ends = time.monotonic() + _LOAD_SECONDS
        for slot in slots:
            while True:
                answers = await self.tell(f"slot-{slot}")
                if answers and all(found == wanted.models[slot] for found, _ in answers):
                    break
                told = [p for _, p in answers if p is not None]
                if told or time.monotonic() > ends:
                    reason = told[0] if told else f"not loaded within {_LOAD_SECONDS:g} s"
                    msg = f"slot {slot} cannot serve version {wanted.models[slot]}: {reason}"
                    raise ServingError(msg, hint="the traffic is what it was")
                await asyncio.sleep(0.1)

    async def tell(self, deployment: str) -> list[Any]:
        """Have all replicas look at the store now; what they answered."""
        handle = serve.get_deployment_handle(deployment, self._application)
        try:
            return list(await handle.broadcast("refresh").results_async())
        except (RayError, RayServeException) as e:  # a replica died; it reads the store when it comes back
            logger.warning("telling %s: %s", deployment, e)
            return []


def _while_loading(now: Traffic, wanted: Traffic) -> Traffic:
    """The new models under the old weights; a slot that empties keeps its model until it has no weight."""
    models = {s: wanted.models[s] if wanted.models[s] is not None else now.models[s] for s in SLOTS}
    return now.changed(models=models)


def _told(traffic: Traffic, slots: list[str]) -> str:
    return ", ".join(f"version {traffic.models[s]} into {s}" for s in slots)
