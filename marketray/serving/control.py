"""Everything that is not on a request's path: the registry, changes of the traffic, rollouts, labels."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from marketray.errors import MarketrayError, RegistryError, ServingError, TrafficError
from marketray.serving.rollouts.conduct import Conductor
from marketray.serving.rollouts.journal import LOAD, UNDO, Journal
from marketray.serving.rollouts.rollback import ROLLBACK, earlier, serving
from marketray.serving.rollouts.rollout import Plan, cancel, start
from marketray.serving.rollouts.settle import Settler
from marketray.serving.store import open_store
from marketray.serving.traffic import SLOTS
from marketray.serving.upkeep import prune, prune_record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from marketray.serving.store.traffic_log import Entry
    from marketray.serving.traffic import Traffic
    from marketray.settings import Settings

__all__ = ["Control"]

logger = logging.getLogger(__name__)

_LOAD_SECONDS = 60.0
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 5.0
_PRUNE_SECONDS = 3600.0
_BREATH_SECONDS = 0.1  # for others' writes, between two deletions
_ANSWER_SECONDS = 1.0
_TOLD_SECONDS = 5.0  # everybody looks by itself too
_HISTORY = 200  # changes among which a rollback looks


class Control:
    """One replica. It holds nothing that the store does not hold, so it may die at any time.

    Make it where an event loop runs: what it does by itself it does there, until `__del__`.
    """

    def __init__(self, settings: Settings, application: str) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._settings = settings
        self._application = application
        self._store = store = open_store(settings.store_uri)
        self._journal = Journal(store.database)
        self._settler = Settler(settings, store)
        self._changing = asyncio.Lock()
        self._resumed = False
        ingress = functools.partial(self._asked, "ingress", seconds=_ANSWER_SECONDS)
        self._conductor = Conductor(
            settings, self._journal, store.scores, lambda: ingress("snapshot"), lambda: ingress("refresh")
        )
        for work, pause in (
            (self._conduct, _LOOK_SECONDS),
            (self._settle, _SETTLE_SECONDS),
            (self._prune, _PRUNE_SECONDS),
        ):
            self._tasks.append(asyncio.create_task(_again_and_again(work, pause)))

    def __del__(self) -> None:
        """Called by Serve before the replica ends."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def check_health(self) -> None:
        """Called by Serve; a control that no longer does its work is replaced."""
        if any(task.done() for task in self._tasks):
            msg = "control no longer looks after rollouts, labels and the store; its log has the cause"
            raise RuntimeError(msg)

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
            There is no such version, the traffic is none, the log cannot be written, a rollout is running.
        ServingError
            A slot cannot serve its new model.
        """
        async with self._changing:
            await asyncio.to_thread(self._journal.require_no_rollout)
            before = await asyncio.to_thread(self._journal.current)
            wanted = await self._wanted(before.traffic, weights, models, more)
            return await self._apply(before, wanted, who, "set", "")

    async def rollback(self, who: str) -> Entry:
        """Cancel the rollout that is running; where none is, go back to what answered before.

        Goes further back past versions that cannot be loaded any more. A slot that was empty then keeps its
        model without weight, and no slot stays the shadow.

        Raises
        ------
        TrafficError
            There is nothing to go back to, see `marketray.serving.rollouts.rollback.earlier`.
        StoreError
            The log cannot be written.
        """
        if await asyncio.to_thread(self._journal.rollouts.active) is not None:
            await self.cancel(who, f"rolled back by {who}")
            return await asyncio.to_thread(self._journal.current)
        async with self._changing:
            await asyncio.to_thread(self._journal.require_no_rollout)
            for entry in earlier(await asyncio.to_thread(self._journal.traffic.history, _HISTORY)):
                then = {slot: version for slot, (_, version) in serving(entry.traffic).items()}
                try:
                    before = await asyncio.to_thread(self._journal.current)
                    more = {"shadow": None}
                    wanted = await self._wanted(before.traffic, entry.traffic.weights, then, more)
                    return await self._apply(before, wanted, who, ROLLBACK, f"back to change {entry.seq}")
                except (RegistryError, ServingError) as e:
                    logger.warning("cannot go back to change %d: %s", entry.seq, e.message)
        msg = "rollback: no version that answered before can be loaded; the service's log has the causes"
        raise TrafficError(msg, hint="set the traffic to a version that can: `marketray models list`")

    async def begin(self, who: str, slot: str, model: str | int, changes: dict[str, Any]) -> dict[str, Any]:
        """Load a version into a slot and begin to roll it out.

        Parameters
        ----------
        who:
            For the log.
        model:
            Version, number as text or alias.
        changes:
            Rules that differ from the settings' `serving.rollout`.

        Returns
        -------
        dict
            The rollout, see `marketray.serving.rollouts.journal.Journal.shown`.

        Raises
        ------
        RolloutActiveError
            Another one is running.
        TrafficError, SettingsError
            The slot answers already, or a rule is wrong.
        RegistryError, ServingError, StoreError
            As `change`.
        """
        async with self._changing:
            await asyncio.to_thread(self._journal.require_no_rollout)
            before = await asyncio.to_thread(self._journal.current)
            Plan.of(slot, 1, self._settings.serving.rollout, changes)  # before the registry is asked
            version = await asyncio.to_thread(self._version, model)
            plan = Plan.of(slot, version, self._settings.serving.rollout, changes)
            start(plan, before.traffic, _now())
            loading = before.traffic.changed(models={**before.traffic.models, slot: version})
            entry = await self._loaded(before, loading, who, {slot})
            rollout = start(plan, before.traffic, _now())
            stored = await asyncio.to_thread(self._journal.start, rollout, who=who, seq=entry.seq)
            await self.tell("ingress")
            return await asyncio.to_thread(self._journal.shown, stored)

    async def cancel(self, who: str, reason: str) -> dict[str, Any]:
        """End the rollout that is running; the traffic is what it was before. The rollout, as `begin`.

        Raises
        ------
        TrafficError
            None is running.
        StoreError
            The log cannot be written.
        """
        async with self._changing:
            stored = await asyncio.to_thread(self._journal.rollouts.active)
            if stored is None:
                msg = "no rollout is running; required: one"
                raise TrafficError(msg, hint="`marketray traffic rollback` goes back to the model before")
            before, now = await asyncio.to_thread(self._journal.current), _now()
            ended = cancel(stored.rollout, now, reason or f"cancelled by {who}")
            saved = await asyncio.to_thread(self._journal.move, stored, ended, now, seq=before.seq)
            await self.tell("ingress")
            return await asyncio.to_thread(self._journal.shown, saved)

    async def _apply(self, before: Entry, wanted: Traffic, who: str, action: str, reason: str) -> Entry:
        """Put `wanted` into force when its new models are loaded."""
        more = {s for s in SLOTS if wanted.weights[s] > before.traffic.weights[s]}
        entry = await self._loaded(before, _while_loading(before.traffic, wanted), who, more)
        return await self._append(wanted, who, action, reason, entry.seq)

    async def _loaded(self, before: Entry, loading: Traffic, who: str, needed: set[str]) -> Entry:
        """Have the slots load the new models of `loading`; the entry in force then, `before` without any.

        Returns when these slots and those that are `needed` have a forecast.
        """
        new = {s for s in SLOTS if loading.models[s] not in (None, before.traffic.models[s])}
        entry = before
        if new:
            entry = await self._append(loading, who, LOAD, f"load {_told(loading, new)}", before.seq)
        try:
            await self._await_loaded(loading, new | needed)
        except (ServingError, asyncio.CancelledError) as e:
            reason = e.message if isinstance(e, ServingError) else "who asked for it did not wait"
            if new:
                await self._append(before.traffic, who, UNDO, reason, entry.seq)
            raise
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
            self._journal.put, traffic, who=who, action=action, reason=reason, seq=seq
        )
        await self.tell("ingress")
        return entry

    async def _await_loaded(self, wanted: Traffic, slots: set[str]) -> None:
        """Until all replicas of the slots have a forecast of their new version."""
        ends = time.monotonic() + _LOAD_SECONDS
        for slot in sorted(slots):
            while True:
                answers = await self._asked(f"slot-{slot}", "refresh", ends - time.monotonic())
                told = [p for _, p in answers if p is not None]
                if answers and not told and all(found == wanted.models[slot] for found, _ in answers):
                    break
                if told or time.monotonic() > ends:
                    reason = told[0] if told else f"not loaded within {_LOAD_SECONDS:g} s"
                    msg = f"slot {slot} cannot serve version {wanted.models[slot]}: {reason}"
                    raise ServingError(msg, hint="the traffic is what it was")
                await asyncio.sleep(0.1)

    async def tell(self, deployment: str) -> list[Any]:
        """Have all replicas look at the store now; what they answered, nothing where one did not in time."""
        return await self._asked(deployment, "refresh", _TOLD_SECONDS)

    async def _asked(self, deployment: str, method: str, seconds: float) -> list[Any]:
        """As `_all`, for so long at most: a process that hangs, such as a stopped one, holds up nothing."""
        try:
            async with asyncio.timeout(seconds):
                return await self._all(deployment, method)
        except TimeoutError:
            logger.warning("%s: no answer to %s within %.3g s", deployment, method, seconds)
            return []

    async def _all(self, deployment: str, method: str) -> list[Any]:
        """What all replicas answer; nothing where one died, which reads the store when it comes back."""
        handle = serve.get_deployment_handle(deployment, self._application)
        try:
            return list(await handle.broadcast(method).results_async())
        except (RayError, RayServeException) as e:
            logger.warning("asking %s: %s", deployment, e)
            return []

    async def _conduct(self) -> None:
        async with self._changing:
            if not self._resumed:
                await asyncio.to_thread(self._journal.take_back_load)
                self._resumed = True
            await self._conductor.look()

    async def _settle(self) -> None:
        while await asyncio.to_thread(self._settler.settle):
            pass

    async def _prune(self) -> None:
        await asyncio.to_thread(prune, self._store, self._settings)
        while await asyncio.to_thread(prune_record, self._store, self._settings):
            await asyncio.sleep(_BREATH_SECONDS)


async def _again_and_again(work: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
    """Do `work` for ever; what goes wrong is logged when it begins and tried again."""
    told = ""
    while True:
        try:
            await work()
            told = ""
        except MarketrayError as e:
            if e.message != told:
                logger.error("control: %s", e)  # noqa: TRY400
            told = e.message
        await asyncio.sleep(pause_seconds)


def _now() -> datetime:
    return datetime.now(UTC)


def _while_loading(now: Traffic, wanted: Traffic) -> Traffic:
    """The new models under the old weights; a slot that empties keeps its model until it has no weight."""
    models = {s: wanted.models[s] if wanted.models[s] is not None else now.models[s] for s in SLOTS}
    return now.changed(models=models)


def _told(traffic: Traffic, slots: set[str]) -> str:
    return ", ".join(f"version {traffic.models[s]} into {s}" for s in sorted(slots))
