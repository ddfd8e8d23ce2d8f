"""The record of every answer, shadow answers and refusals among them, and later of what came true."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, not_, or_, select, update

from marketray.errors import StoreError
from marketray.serving.store.database import Database
from marketray.serving.store.tables import PREDICTIONS, awaits_actual, from_micros, to_micros

__all__ = [
    "EVERYTHING",
    "MOST_ROWS",
    "CursorError",
    "Prediction",
    "PredictionRow",
    "Predictions",
    "Settlement",
    "Wanted",
]

MOST_ROWS = 1_000
"""Most rows of one page of the history."""

_CURSOR = re.compile(r"(-?\d{1,18})-(\d{1,18})")


class CursorError(StoreError):
    """The cursor is none that a page of the history came with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """One answer of a slot, or its failure to answer.

    Attributes
    ----------
    request_id, slot, shadow:
        Together the identity of the answer. A request for many rows numbers them: ``<request_id>/<row>``.
        `shadow`: the answer was recorded and not given.
    at:
        When it was answered.
    bars:
        state: made of the service's own latest bars; request: of bars that the caller sent, which says
        nothing about the model's skill on the market.
    decision_at, target_at, last_close:
        Of the forecast; None where there is none.
    predicted_return, probability_up, direction, features_used:
        The forecast; returns are fractions. A number that is not finite is stored as null.
    latency_ms:
        Inside the service.
    status, problem:
        HTTP status, and the kind of problem where it is none of success.
    client_bucket:
        Of the caller's key, see `marketray.serving.traffic.bucket`.
    """

    request_id: str
    at: datetime
    slot: str
    instrument: str
    status: int = 200
    shadow: bool = False
    bars: Literal["state", "request"] = "state"
    model_name: str | None = None
    model_version: int | None = None
    catalog_hash: str | None = None
    decision_at: datetime | None = None
    target_at: datetime | None = None
    last_close: float | None = None
    predicted_return: float | None = None
    probability_up: float | None = None
    direction: str | None = None
    features_used: int | None = None
    latency_ms: float | None = None
    problem: str | None = None
    client_bucket: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(PredictionRow):
    """A recorded answer.

    Attributes
    ----------
    id:
        Number in the record.
    actual_return, error:
        What came true, and `predicted_return` − `actual_return`; None where that is not known.
    actual_at:
        When it was looked up; None: not yet.
    actual_reason:
        Why there is no actual return though it was looked up.
    """

    id: int
    actual_return: float | None = None
    error: float | None = None
    actual_at: datetime | None = None
    actual_reason: str | None = None


@dataclass(frozen=True)
class Settlement:
    """What came true of the prediction `id`: a return, or None and the `reason` why there is none."""

    id: int
    actual_return: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Which predictions: those that agree with all that is given. `at` lies in [from_at, to_at)."""

    instrument: str | None = None
    slot: str | None = None
    version: int | None = None
    shadow: bool | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None

    def condition(self) -> ColumnElement[bool]:
        """As a condition on the table of predictions."""
        column = PREDICTIONS.c
        same = {
            column.instrument: self.instrument,
            column.slot: self.slot,
            column.model_version: self.version,
            column.shadow: self.shadow,
        }
        parts = [of == value for of, value in same.items() if value is not None]
        if self.from_at is not None:
            parts.append(column.at >= self.from_at)
        if self.to_at is not None:
            parts.append(column.at < self.to_at)
        return and_(True, *parts)


EVERYTHING = Wanted()
"""All predictions."""


class Predictions:
    """The predictions in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, rows: Sequence[PredictionRow]) -> None:
        """Add answers in one transaction; those that are there already stay as they are.

        Raises
        ------
        StoreUnavailableError
            The database cannot be reached; the same rows may be recorded later.
        StoreError
            It refuses a row, such as one with a time without zone; none of `rows` is recorded.
        """
        values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
        with self._database.writing("recording predictions") as connection:
            self._database.insert_new(connection, PREDICTIONS, values)

    def history(
        self, wanted: Wanted = EVERYTHING, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Prediction], str | None]:
        """A page of predictions, the newest by `at` first, and the cursor of the next one (None: no more).

        What is recorded while someone turns the pages shows up on none of them twice and displaces nothing
        that was there at the first page.

        Raises
        ------
        StoreError
            `limit` is not in 1 … `MOST_ROWS`.
        CursorError
            The cursor is none of ours.
        """
        if not 1 <= limit <= MOST_ROWS:
            msg = f"limit={limit}; required: 1 … {MOST_ROWS}"
            raise StoreError(msg, hint="turn the pages with the cursor that each comes with")
        at, number = PREDICTIONS.c.at, PREDICTIONS.c.id
        query = select(PREDICTIONS).where(wanted.condition()).order_by(at.desc(), number.desc())
        if cursor is not None:
            before_at, before_id = _position(cursor)
            query = query.where(or_(at < before_at, and_(at == before_at, number < before_id)))
        with self._database.reading("reading predictions") as connection:
            found = [_prediction(row) for row in connection.execute(query.limit(limit + 1))]
        more = len(found) > limit
        return found[:limit], f"{to_micros(found[limit - 1].at)}-{found[limit - 1].id}" if more else None

    def due(self, now: datetime, limit: int = 1_000) -> list[Prediction]:
        """The first `limit` predictions with `target_at` <= `now` that are not settled, by `target_at`."""
        query = select(PREDICTIONS).where(awaits_actual, PREDICTIONS.c.target_at <= now)
        query = query.order_by(PREDICTIONS.c.target_at, PREDICTIONS.c.id).limit(limit)
        with self._database.reading("reading predictions that are due") as connection:
            return [_prediction(row) for row in connection.execute(query)]

    def settle(self, settlements: Iterable[Settlement], at: datetime | None = None) -> None:
        """Write what came true, in one transaction; what is settled already stays.

        Parameters
        ----------
        at:
            When it was looked up; None: now.
        """
        values = [{"of": s.id, "actual": s.actual_return, "why": s.reason} for s in settlements]
        change = (
            update(PREDICTIONS)
            .where(PREDICTIONS.c.id == bindparam("of"), PREDICTIONS.c.actual_at.is_(None))
            .values(
                actual_return=bindparam("actual"),
                error=PREDICTIONS.c.predicted_return - bindparam("actual"),
                actual_at=at or datetime.now(UTC),
                actual_reason=bindparam("why"),
            )
        )
        if values:
            with self._database.writing("settling predictions") as connection:
                connection.execute(change, values)

    def prune(self, before: datetime, *, awaiting_before: datetime, limit: int = 1_000) -> int:
        """Delete some old predictions, the oldest by `at` first; gives how many; 0: no other is old.

        They are looked for before the transaction that deletes them, so that it holds sqlite's write lock
        for no longer than `limit` rows take.

        Parameters
        ----------
        before:
            Those with an earlier `at` are old.
        awaiting_before:
            The same of those whose actual return is not known yet, as it may still arrive.
        """
        at, number = PREDICTIONS.c.at, PREDICTIONS.c.id
        old = or_(at < awaiting_before, and_(at < before, not_(awaits_actual)))
        oldest = select(number).where(old).order_by(at, number).limit(limit)
        with self._database.reading("looking for old predictions") as connection:
            found = list(connection.execute(oldest).scalars())
        if not found:
            return 0
        with self._database.writing("deleting old predictions") as connection:
            return connection.execute(delete(PREDICTIONS).where(number.in_(found))).rowcount

    def stream(self, wanted: Wanted = EVERYTHING, batch: int = 5_000) -> Iterator[list[dict[str, Any]]]:
        """All predictions of one moment, the oldest by `at` first, as plain rows in lists of `batch`.

        Memory holds one list at a time, whatever their number.
        """
        query = select(PREDICTIONS).where(wanted.condition()).order_by(PREDICTIONS.c.at, PREDICTIONS.c.id)
        with self._database.reading("reading predictions") as connection:
            found = connection.execution_options(yield_per=batch).execute(query)
            for rows in found.mappings().partitions(batch):
                yield [dict(row) for row in rows]


_COLUMNS = tuple(field.name for field in fields(PredictionRow))


def _prediction(row: Row[tuple[object, ...]]) -> Prediction:
    return Prediction(**row._asdict())


def _position(cursor: str) -> tuple[datetime, int]:
    found = _CURSOR.fullmatch(cursor)
    try:
        if found is not None:
            return from_micros(int(found[1])), int(found[2])
    except OverflowError:  # digits that are no time
        pass
    msg = f"cursor={cursor[:50]!r}; required: the cursor that the page before came with"
    raise CursorError(msg, hint="leave it out to start with the newest predictions")
