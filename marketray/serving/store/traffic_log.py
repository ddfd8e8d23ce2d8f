"""The traffic in force: the newest row of a log to which rows are only added."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Row, insert, select

from marketray.errors import StoreError
from marketray.serving.store.database import Database
from marketray.serving.store.tables import TRAFFIC
from marketray.serving.traffic import Traffic

__all__ = ["DECLARE", "Entry", "StaleTrafficError", "TrafficLog"]

DECLARE = "declare"
"""Action of the rows that `TrafficLog.declare` adds."""


class StaleTrafficError(StoreError):
    """The traffic has been changed since it was read."""


@dataclass(frozen=True)
class Entry:
    """One change of the traffic.

    Attributes
    ----------
    seq:
        Number of the change, counted from 1 without gaps.
    at:
        When it was written, UTC, by the clock of the process that did.
    who, action, reason:
        Who changed it, by what (declare, set, shadow, promote, rollback, …), and why.
    traffic:
        What is in force from then on.
    """

    seq: int
    at: datetime
    who: str
    action: str
    reason: str
    traffic: Traffic


class TrafficLog:
    """The log of the traffic's changes in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self) -> Entry | None:
        """The traffic in force; None where none was ever set."""
        newest = self.history(limit=1)
        return newest[0] if newest else None

    def history(self, limit: int = 100, before_seq: int | None = None) -> list[Entry]:
        """The newest `limit` changes, newest first; where `before_seq` is given those before that number."""
        query = select(TRAFFIC).order_by(TRAFFIC.c.seq.desc()).limit(limit)
        if before_seq is not None:
            query = query.where(TRAFFIC.c.seq < before_seq)
        with self._database.reading("reading the traffic") as connection:
            return [_entry(row) for row in connection.execute(query)]

    def append(
        self, traffic: Traffic, *, who: str, action: str, reason: str = "", expect_seq: int | None = None
    ) -> Entry:
        """Put `traffic` into force.

        Parameters
        ----------
        expect_seq:
            Number of the change that this one was decided on, 0 for none; of several that name the same
            one the first wins. None: whatever is in force.

        Raises
        ------
        StaleTrafficError
            Another change came between.
        """
        with self._database.writing("changing the traffic", TRAFFIC) as connection:
            newest = self.current()
            seq = 0 if newest is None else newest.seq
            if expect_seq is not None and expect_seq != seq:
                made = f" ({newest.action} by {newest.who}, {newest.at.isoformat()})" if newest else ""
                msg = f"expect_seq={expect_seq}, but the newest change of the traffic is {seq}{made}"
                raise StaleTrafficError(msg, hint="look at the traffic as it is now and decide again")
            entry = Entry(seq + 1, datetime.now(UTC), who, action, reason, traffic)
            values = {**vars(entry), "traffic": traffic.to_json()}
            connection.execute(insert(TRAFFIC).values(values))
        return entry

    def declare(self, traffic: Traffic, *, who: str) -> Entry:
        """Put into force what a configuration declares, once for each declaration; gives what is in force.

        The same declaration again changes nothing, so what was changed since stays when a service is
        deployed again; another one than the last goes into force. Any number of replicas may call this at
        once: one row comes of it.
        """
        last = select(TRAFFIC).where(TRAFFIC.c.action == DECLARE).order_by(TRAFFIC.c.seq.desc()).limit(1)
        with self._database.writing("declaring the traffic", TRAFFIC) as connection:
            declared = connection.execute(last).one_or_none()
            if declared is None or declared.traffic != traffic.to_json():
                return self.append(traffic, who=who, action=DECLARE)
            newest = self.current()
        assert newest is not None
        return newest


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    values = row._asdict()
    return Entry(**{**values, "traffic": Traffic.from_json(values["traffic"])})
