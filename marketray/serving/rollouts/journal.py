"""Changes of the traffic and of rollouts, each whole: the log, the rollout and the word to subscribers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketray.serving.store.events import Events
from marketray.serving.store.rollouts import RolloutActiveError, Rollouts
from marketray.serving.store.tables import EVENTS, ROLLOUTS, TRAFFIC
from marketray.serving.store.traffic_log import TrafficLog

if TYPE_CHECKING:
    from datetime import datetime

    from marketray.serving.rollouts.rollout import Decision, Rollout
    from marketray.serving.store.database import Database
    from marketray.serving.store.rollouts import StoredRollout
    from marketray.serving.store.traffic_log import Entry
    from marketray.serving.traffic import Traffic

__all__ = ["LOAD", "UNDO", "Journal", "rollout_json", "traffic_json"]

_DECISIONS = 20
"""Decisions that a rollout is shown with."""

LOAD, UNDO = "load", "undo"
"""Actions of the entries that have the slots load, and of those that take that back."""


class Journal:
    """What `Control` writes, each call in one transaction: whoever reads sees all of it or nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.traffic = TrafficLog(database)
        self.rollouts = Rollouts(database)
        self._events = Events(database)

    def current(self) -> Entry:
        """The traffic in force."""
        entry = self.traffic.current()
        assert entry is not None, "the application is built after its traffic was declared"
        return entry

    def require_no_rollout(self) -> None:
        """Refuse a change by hand while a rollout moves the traffic.

        Raises
        ------
        RolloutActiveError
            One is running.
        """
        active = self.rollouts.active()
        if active is not None:
            msg = f"rollout {active.id} (by {active.who}) moves the traffic; required: none is running"
            raise RolloutActiveError(msg, hint="wait for its end, or cancel it: DELETE /traffic/rollout")

    def put(self, traffic: Traffic, *, who: str, action: str, reason: str, seq: int) -> Entry:
        """Put `traffic` into force, decided on the entry `seq`, see `TrafficLog.append`."""
        with self._database.writing("changing the traffic", TRAFFIC, EVENTS):
            entry = self.traffic.append(traffic, who=who, action=action, reason=reason, expect_seq=seq)
            self._events.publish("traffic", traffic_json(entry), key=str(entry.seq))
        return entry

    def take_back_load(self) -> None:
        """Undo a change whose control ended while the slots loaded; call it where no change is under way."""
        with self._database.writing("taking a change back", TRAFFIC, EVENTS):
            newest, *before = self.traffic.history(limit=2)
            if before and newest.action == LOAD:
                reason = "control ended while the slots loaded"
                self.put(before[0].traffic, who=newest.who, action=UNDO, reason=reason, seq=newest.seq)

    def start(self, rollout: Rollout, *, who: str, seq: int) -> StoredRollout:
        """Save a rollout that begins and put its traffic into force; raises as `Rollouts.start` and `put`."""
        with self._database.writing("starting a rollout", TRAFFIC, ROLLOUTS, EVENTS):
            stored = self.rollouts.start(rollout, who=who)
            self.put(rollout.traffic, who=who, action="rollout", reason=rollout.reason, seq=seq)
            self._tell(stored)
        return stored

    def move(self, stored: StoredRollout, decision: Decision, at: datetime, *, seq: int) -> StoredRollout:
        """Save what was decided and put the rollout's traffic into force."""
        with self._database.writing("moving the rollout", TRAFFIC, ROLLOUTS, EVENTS):
            who = f"rollout {stored.id}"
            self.put(decision.rollout.traffic, who=who, action=decision.kind, reason=decision.reason, seq=seq)
            return self.save(stored, decision, at)

    def save(self, stored: StoredRollout, decision: Decision, at: datetime) -> StoredRollout:
        """Save what was decided and leave the traffic as it is."""
        with self._database.writing("saving the rollout", ROLLOUTS, EVENTS):
            saved = self.rollouts.save(stored, decision, at)
            if decision.kind != "hold":
                self._tell(saved)
        return saved

    def shown(self, stored: StoredRollout) -> dict[str, Any]:
        """The rollout with its newest decisions, as plain JSON values."""
        made = self.rollouts.decisions(stored.id, limit=_DECISIONS)
        decisions = [
            {"at": d.at.isoformat(), "kind": d.kind, "step": d.step, "reason": d.reason} for d in made
        ]
        return {**rollout_json(stored), "decisions": decisions}

    def _tell(self, stored: StoredRollout) -> None:
        self._events.publish("rollout", self.shown(stored), key=f"{stored.id}|{stored.revision}")


def rollout_json(stored: StoredRollout) -> dict[str, Any]:
    """A rollout as clients see it; `steps` are percent of the traffic, `step` −1 is the shadow phase."""
    rollout = stored.rollout
    return {
        "id": stored.id,
        "phase": rollout.phase,
        "slot": rollout.plan.slot,
        "version": rollout.plan.version,
        "step": rollout.step,
        "steps": list(rollout.plan.rules.steps),
        "started_at": rollout.started_at.isoformat(),
        "entered_at": rollout.entered_at.isoformat(),
        "ended_at": rollout.ended_at.isoformat() if rollout.ended_at else None,
        "who": stored.who,
        "reason": rollout.reason,
    }


def traffic_json(entry: Entry) -> dict[str, Any]:
    """A change of the traffic as clients see it, weights in percent."""
    traffic = entry.traffic
    return {
        "seq": entry.seq,
        "at": entry.at.isoformat(),
        "who": entry.who,
        "action": entry.action,
        "reason": entry.reason,
        "weights": {slot: weight / 100 for slot, weight in traffic.weights.items()},
        "models": dict(traffic.models),
        "shadow": traffic.shadow,
    }
