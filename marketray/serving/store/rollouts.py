"""Rollouts as they stand, and every decision that moved one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from marketray.errors import StoreError
from marketray.serving.rollouts.rollout import Decision, Rollout
from marketray.serving.store.database import Database
from marketray.serving.store.tables import DECISIONS, ROLLOUTS

__all__ = ["RecordedDecision", "RolloutActiveError", "Rollouts", "StaleRolloutError", "StoredRollout"]


class RolloutActiveError(StoreError):
    """A rollout is running, and there may be one at a time."""


class StaleRolloutError(StoreError):
    """The rollout has been saved by someone else since it was read."""


@dataclass(frozen=True)
class StoredRollout:
    """A rollout with its number, how often it was saved, and who started it."""

    id: int
    revision: int
    who: str
    rollout: Rollout


@dataclass(frozen=True)
class RecordedDecision:
    """A decision that moved a rollout; `step` is the one after it, `at` is UTC."""

    at: datetime
    kind: str
    step: int
    reason: str
    numbers: dict[str, Any]


class Rollouts:
    """The rollouts in `database`.

    To change the traffic together with its rollout, put both into one block of `Database.writing`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, rollout: Rollout, *, who: str) -> StoredRollout:
        """Save a rollout that begins.

        Raises
        ------
        RolloutActiveError
            Another one is running.
        """
        with self._database.writing("starting a rollout", ROLLOUTS) as connection:
            running = self.active()
            if running is not None:
                msg = (
                    f"rollout {running.id} of version {running.rollout.plan.version} (by {running.who}) is "
                    "running; required: none"
                )
                raise RolloutActiveError(msg, hint="wait for its end, or cancel it")
            values = {"revision": 0, "who": who, **_columns(rollout)}
            number = connection.execute(insert(ROLLOUTS).returning(ROLLOUTS.c.id), values).scalar_one()
        return StoredRollout(number, 0, who, rollout)

    def active(self) -> StoredRollout | None:
        """The rollout that is running, if one is."""
        query = select(ROLLOUTS).where(ROLLOUTS.c.ended_at.is_(None))
        with self._database.reading("reading the rollout") as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _stored(row)

    def save(self, stored: StoredRollout, decision: Decision, at: datetime) -> StoredRollout:
        """Save a rollout after a decision and record the decision, unless it is a hold: that moves nothing.

        Raises
        ------
        StaleRolloutError
            It has been saved since `stored` was read; nothing is changed.
        """
        known = (ROLLOUTS.c.id == stored.id, ROLLOUTS.c.revision == stored.revision)
        values = {"revision": stored.revision + 1, **_columns(decision.rollout)}
        with self._database.writing("saving the rollout", ROLLOUTS) as connection:
            if connection.execute(update(ROLLOUTS).where(*known).values(values)).rowcount != 1:
                msg = f"rollout {stored.id} has been saved since its revision {stored.revision} was read"
                raise StaleRolloutError(msg, hint="read it again and decide again")
            if decision.kind != "hold":
                made = RecordedDecision(
                    at, decision.kind, decision.rollout.step, decision.reason, decision.numbers
                )
                connection.execute(insert(DECISIONS).values(rollout_id=stored.id, **vars(made)))
        return dataclasses.replace(stored, revision=stored.revision + 1, rollout=decision.rollout)

    def decisions(self, rollout_id: int, limit: int = 100) -> list[RecordedDecision]:
        """The newest `limit` decisions on a rollout, newest first."""
        names = [DECISIONS.c[field.name] for field in dataclasses.fields(RecordedDecision)]
        query = select(*names).where(DECISIONS.c.rollout_id == rollout_id)
        query = query.order_by(DECISIONS.c.id.desc()).limit(limit)
        with self._database.reading("reading decisions") as connection:
            return [RecordedDecision(*row) for row in connection.execute(query)]

    def history(self, limit: int = 100) -> list[StoredRollout]:
        """The newest `limit` rollouts, newest first."""
        query = select(ROLLOUTS).order_by(ROLLOUTS.c.id.desc()).limit(limit)
        with self._database.reading("reading rollouts") as connection:
            return [_stored(row) for row in connection.execute(query)]


def _columns(rollout: Rollout) -> dict[str, Any]:
    times = {"started_at": rollout.started_at, "ended_at": rollout.ended_at}
    return {**times, "rollout": rollout.to_json()}


def _stored(row: Row[tuple[object, ...]]) -> StoredRollout:
    values = row._asdict()
    rollout = Rollout.from_json(values["rollout"])
    return StoredRollout(values["id"], values["revision"], values["who"], rollout)
