"""Conducts the rollout that is running: counts, decides, and puts into force what was decided.

Everything that must last stands in the store, so a conductor may die at any time and another one goes on.
Only what it counts is its own: after a restart the present step is judged by what came since then, which
costs time and loosens no gate.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError
from marketray.serving.rollouts.gates import SlotWindows
from marketray.serving.rollouts.outcomes import Window
from marketray.serving.rollouts.rollout import Decision, break_off, cancel, decide
from marketray.serving.rollouts.sequential import compare_losses
from marketray.serving.store.rollouts import StaleRolloutError
from marketray.serving.store.scores import Arm, Loss, Scores
from marketray.serving.store.traffic_log import StaleTrafficError
from marketray.serving.traffic import Traffic

if TYPE_CHECKING:
    from marketray.serving.rollouts.journal import Journal
    from marketray.serving.rollouts.rollout import Rollout
    from marketray.serving.rollouts.sequential import Evidence
    from marketray.serving.store.rollouts import StoredRollout
    from marketray.settings import Settings

__all__ = ["Conductor", "Snapshots"]

logger = logging.getLogger(__name__)

Snapshots = Sequence[Mapping[str, Any]]
"""One a process, see `marketray.serving.rollouts.outcomes`; beside it `unwell`, reasons by slot."""

_EVIDENCE = timedelta(seconds=10)
_HOLD = timedelta(seconds=1)
_UNWELL = timedelta(seconds=1)
_UNWELL_AT_FIRST = timedelta(seconds=5)  # it was, while its model was loaded, and is looked at again first
_KEPT = 100  # snapshots of the last window


class Conductor:
    """Conducts by one `look` after the other.

    Parameters
    ----------
    observe:
        The snapshots of all ingress replicas; none where they cannot be had now.
    told:
        Called when other traffic is in force.
    clock:
        The time, UTC.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        scores: Scores,
        observe: Callable[[], Awaitable[Snapshots]],
        told: Callable[[], Awaitable[object]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._journal, self._scores = settings, journal, scores
        self._observe, self._told, self._clock = observe, told, clock
        self._forget(None)

    async def look(self) -> Decision | None:
        """Look at the rollout that is running, if one is, and do what is to be done; what was decided.

        Raises
        ------
        StoreError, TrafficError
            The store cannot be used, or does not hold what this release can read.
        """
        stored = await asyncio.to_thread(self._journal.rollouts.active)
        if stored is None:
            self._forget(None)
            return None
        if stored.id != self._id:
            self._forget(stored.id)
        entry = await asyncio.to_thread(self._journal.current)
        now, rollout = self._clock(), stored.rollout
        try:
            if entry.traffic != rollout.traffic:
                found = cancel(rollout, now, f"{entry.who} changed the traffic ({entry.action})")
                await asyncio.to_thread(self._journal.save, stored, found, now)
                return found
            seen = await self._observe()
            if not seen:
                return None
            decision = self._decide(rollout, seen, now)
            await self._act(stored, decision, now, entry.seq)
        except (StaleTrafficError, StaleRolloutError) as e:
            logger.info("rollout %d: looked again, since %s", stored.id, e.message)
            return None
        return decision

    def _forget(self, rollout_id: int | None) -> None:
        """Start counting anew."""
        self._id = rollout_id
        self._entered: datetime | None = None
        self._base: Snapshots = ()
        self._last: Snapshots = ()
        self._recent: deque[tuple[datetime, Snapshots]] = deque()
        self._unwell_since: datetime | None = None
        self._was_well = False
        self._held_at: datetime | None = None
        self._evidence: Evidence | None = None
        self._weighed_at: datetime | None = None
        self._weighing: asyncio.Task[Evidence | None] | None = None

    def _decide(self, rollout: Rollout, seen: Snapshots, now: datetime) -> Decision:
        slot = rollout.plan.slot
        unwell = [s["unwell"][slot] for s in seen if slot in s["unwell"]]
        self._unwell_since = (self._unwell_since or now) if unwell else None
        self._was_well = self._was_well or not unwell
        most = _UNWELL if self._was_well else _UNWELL_AT_FIRST
        if self._unwell_since is not None and now - self._unwell_since >= most:
            return break_off(rollout, now, f"slot {slot} does not answer: {unwell[0]}", {})
        before = self._window_start(rollout, seen, now)
        step, recent = (_windows(rollout, start, seen) for start in (self._base, before))
        found = decide(rollout, step=step, recent=recent, evidence=self._weigh(rollout, now), now=now)
        if not unwell or found.kind in ("hold", "break"):
            return found
        reason = f"slot {slot} does not answer: {unwell[0]}"
        return Decision("hold", reason, found.numbers, dataclasses.replace(rollout, reason=reason))

    def _window_start(self, rollout: Rollout, seen: Snapshots, now: datetime) -> Snapshots:
        """Keep the snapshots; gives those at the start of the latest window. Also sets the step's base."""
        if self._entered != rollout.entered_at:
            self._entered = rollout.entered_at
            self._base = self._last or seen
        self._last = seen
        span = timedelta(seconds=rollout.plan.rules.window_seconds)
        if not self._recent or now - self._recent[-1][0] >= span / _KEPT:
            self._recent.append((now, seen))
        while len(self._recent) > 1 and self._recent[1][0] <= now - span:
            self._recent.popleft()
        return self._recent[0][1]

    def _weigh(self, rollout: Rollout, now: datetime) -> Evidence | None:
        """The newest evidence; more of it is weighed beside, since that may take longer than a look."""
        task = self._weighing
        if task is not None and task.done():
            self._weighing = None
            try:
                self._evidence = task.result()
            except MarketrayError as e:  # the gates go on
                logger.warning("the losses cannot be compared: %s", e)
        if self._weighing is None and (self._weighed_at is None or now - self._weighed_at >= _EVIDENCE):
            self._weighed_at = now
            self._weighing = asyncio.create_task(asyncio.to_thread(self._compared, rollout))
        return self._evidence

    def _compared(self, rollout: Rollout) -> Evidence | None:
        """The sequential test on the labels since the rollout began; None: no label has arrived."""
        settings, plan = self._settings, rollout.plan
        slot, old = plan.slot, Traffic.other(plan.slot)
        version = rollout.baseline.models[old]
        assert version is not None, "it has the rest of the traffic"
        loss: Loss = "brier" if settings.labels.task == "direction" else "squared"
        arms = Arm(slot, plan.version), Arm(old, version)
        pairs = self._scores.paired(settings.instrument, *arms, after=rollout.started_at, loss=loss)
        if pairs.is_empty():
            return None
        return compare_losses(
            pairs["loss_a"].to_numpy(),
            pairs["loss_b"].to_numpy(),
            pairs["decision_at"].dt.epoch("us").to_numpy(),
            settings.labels.horizon_minutes,
            alpha=plan.rules.alpha,
            step_minutes=settings.bar_interval_minutes,
        )

    async def _act(self, stored: StoredRollout, decision: Decision, now: datetime, seq: int) -> None:
        if decision.kind == "hold":
            if decision.reason == stored.rollout.reason:
                return
            if self._held_at is None or now - self._held_at >= _HOLD:  # it counts seconds
                self._held_at = now
                await asyncio.to_thread(self._journal.save, stored, decision, now)
            return
        await asyncio.to_thread(self._journal.move, stored, decision, now, seq=seq)
        logger.info("rollout %d: %s, %s", stored.id, decision.kind, decision.reason)
        await self._told()


def _windows(rollout: Rollout, before: Snapshots, seen: Snapshots) -> SlotWindows:
    slot, old = rollout.plan.slot, Traffic.other(rollout.plan.slot)
    version = rollout.baseline.models[old]
    assert version is not None, "it has the rest of the traffic"
    new = Window.between(before, seen, slot, rollout.plan.version)
    return SlotWindows(new, Window.between(before, seen, old, version))
