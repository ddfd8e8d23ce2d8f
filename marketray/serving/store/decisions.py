"""What models said of the latest decisions, one row for each, however many callers asked."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Integer, Select, and_, func, literal, select

from marketray.errors import StoreError
from marketray.serving.store.database import Database
from marketray.serving.store.predictions import MOST_ROWS, Prediction
from marketray.serving.store.scores import Arm
from marketray.serving.store.tables import PREDICTIONS

__all__ = ["latest_decisions"]


def latest_decisions(
    database: Database, instrument: str, arms: Iterable[Arm], limit: int
) -> list[Prediction]:
    """The newest `limit` decisions of these models, newest first; of each decision of a model one answer.

    Answers from callers' own bars are left out. Each decision costs a look into the index, not a read of all
    answers to it.

    Raises
    ------
    StoreError
        `limit` is not in 1 … `MOST_ROWS`.
    """
    if not 1 <= limit <= MOST_ROWS:
        msg = f"limit={limit}; required: 1 … {MOST_ROWS}"
        raise StoreError(msg, hint="ask for fewer decisions")
    found: list[Prediction] = []
    with database.reading("reading the latest decisions") as connection:
        for arm in set(arms):
            rows = connection.execute(_of(arm, instrument, limit))
            found.extend(Prediction(**row._asdict()) for row in rows)
    found.sort(key=lambda p: (p.decision_at, p.slot, p.model_version), reverse=True)
    return found[:limit]


def _of(arm: Arm, instrument: str, limit: int) -> Select[tuple[object, ...]]:
    """One answer of each of the arm's newest `limit` decisions.

    The times are found one after the other, each as the greatest below the one before.
    """
    column = PREDICTIONS.c
    own = and_(
        column.slot == arm.slot,
        column.model_version == arm.version,
        column.instrument == instrument,
        column.bars == "state",
        column.status < 400,
    )
    newest = select(func.max(column.decision_at).label("at"), literal(1, Integer).label("place")).where(own)
    times = newest.cte("times", recursive=True)
    before = select(func.max(column.decision_at)).where(own, column.decision_at < times.c.at)
    further = select(before.scalar_subquery(), times.c.place + 1)
    times = times.union_all(further.where(times.c.at.is_not(None), times.c.place < limit))
    one = select(column.id).where(own, column.decision_at == times.c.at).limit(1).correlate(times)
    return select(PREDICTIONS).join(times, column.id == one.scalar_subquery())
