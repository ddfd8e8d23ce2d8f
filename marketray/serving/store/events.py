"""What the service tells its subscribers, numbered, so that they can go on where they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select

from marketray.errors import StoreError
from marketray.serving.store.database import Database
from marketray.serving.store.tables import EVENTS

__all__ = ["Event", "Events"]


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes
    ----------
    id:
        Counted from 1 in the order in which events can be read, without gaps: a reader that finds another
        one than the next has missed events that were deleted.
    at:
        When it was published, UTC.
    kind, key:
        What kind of event it is, and what makes it the only one of its kind.
    payload:
        Its content, plain JSON values.
    """

    id: int
    at: datetime
    kind: str
    key: str
    payload: dict[str, Any]


class Events:
    """The stream of events in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, kind: str, payload: Mapping[str, Any], *, key: str) -> int:
        """Add an event, unless there is one of this kind with this key; gives the id of the one that stays.

        Several processes that find the same thing out publish it once: the first one's payload stays.
        """
        own = select(EVENTS.c.id).where(EVENTS.c.kind == kind, EVENTS.c.key == key)
        with self._database.writing("publishing an event", EVENTS) as connection:
            known: int | None = connection.execute(own).scalar()
            if known is not None:
                return known
            number: int = connection.execute(select(func.coalesce(func.max(EVENTS.c.id), 0) + 1)).scalar_one()
            event = Event(number, datetime.now(UTC), kind, key, dict(payload))
            connection.execute(insert(EVENTS).values(vars(event)))
        return number

    def after(self, number: int, limit: int = 1_000) -> list[Event]:
        """The first `limit` events with a greater id than `number`, oldest first."""
        query = select(EVENTS).where(EVENTS.c.id > number).order_by(EVENTS.c.id).limit(limit)
        with self._database.reading("reading events") as connection:
            return [_event(row) for row in connection.execute(query)]

    def last(self) -> Event | None:
        """The newest event; None where there is none."""
        with self._database.reading("reading events") as connection:
            row = connection.execute(select(EVENTS).order_by(EVENTS.c.id.desc()).limit(1)).one_or_none()
        return None if row is None else _event(row)

    def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` events; gives how many were deleted.

        Raises
        ------
        StoreError
            `keep` is below 1: the newest event holds the count.
        """
        if keep < 1:
            msg = f"keep={keep}; required: 1 or more, since the newest event holds the count"
            raise StoreError(msg, hint="keep as many as a subscriber may be behind")
        newest = select(func.max(EVENTS.c.id)).scalar_subquery()
        with self._database.writing("deleting old events") as connection:
            return connection.execute(delete(EVENTS).where(EVENTS.c.id <= newest - keep)).rowcount


def _event(row: Row[tuple[object, ...]]) -> Event:
    return Event(**row._asdict())
