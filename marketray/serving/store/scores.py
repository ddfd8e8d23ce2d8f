"""What recorded predictions say about the models that made them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import polars as pl
from sqlalchemy import ColumnElement, Double, FromClause, and_, case, cast, func, select

from marketray.serving.store.database import Database
from marketray.serving.store.predictions import EVERYTHING, Wanted
from marketray.serving.store.tables import PREDICTIONS

__all__ = ["PAIRS", "Arm", "ArmSummary", "Loss", "Scores"]

Loss = Literal["squared", "brier"]
"""(predicted_return − actual_return)², or (probability_up − [actual_return > 0])²."""

PAIRS = {
    "decision_at": pl.Datetime("us", "UTC"),
    "target_at": pl.Datetime("us", "UTC"),
    "actual_return": pl.Float64(),
    "loss_a": pl.Float64(),
    "loss_b": pl.Float64(),
}
"""Columns of paired losses; the label covers (decision_at, target_at]."""


class Arm(NamedTuple):
    """A model in a slot."""

    slot: str
    version: int


@dataclass(frozen=True)
class ArmSummary:
    """What one model did in one slot; its answers as the shadow stand apart.

    Attributes
    ----------
    n:
        Answers and failures.
    errors:
        Status 500 and above: the slot's own failures, not its callers'.
    nulls:
        Answers with neither a return nor a probability.
    settled:
        Answers of which it is known what came true.
    mean_loss:
        Over those; None where there is none.
    """

    slot: str
    version: int | None
    shadow: bool
    n: int
    errors: int
    nulls: int
    settled: int
    mean_loss: float | None


class Scores:
    """Scores of the predictions in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def paired(
        self, instrument: str, a: Arm, b: Arm, *, after: datetime | None = None, loss: Loss = "squared"
    ) -> pl.DataFrame:
        """Losses of two models on the same decisions, sorted by them, one row each; columns `PAIRS`.

        Both have answered one request, one of them as the shadow, from the service's own bars, and it is
        known what came true. Where several requests of a decision were answered the first recorded counts.

        Parameters
        ----------
        after:
            Only decisions after this time, such as the start of a rollout.
        """
        left, right = PREDICTIONS.alias("a"), PREDICTIONS.alias("b")
        both = and_(
            right.c.request_id == left.c.request_id,
            right.c.decision_at == left.c.decision_at,
            right.c.instrument == left.c.instrument,
            right.c.shadow != left.c.shadow,
        )
        order = func.row_number().over(partition_by=left.c.decision_at, order_by=left.c.id)
        loss_a, loss_b = _loss(left, loss).label("loss_a"), _loss(right, loss).label("loss_b")
        columns = (left.c.decision_at, left.c.target_at, left.c.actual_return, loss_a, loss_b)
        query = select(*columns, order.label("place")).select_from(left.join(right, both))
        query = query.where(left.c.instrument == instrument, loss_a.is_not(None), loss_b.is_not(None))
        for side, arm in ((left, a), (right, b)):
            query = query.where(side.c.slot == arm.slot, side.c.model_version == arm.version)
            query = query.where(side.c.bars == "state")
        if after is not None:
            query = query.where(left.c.decision_at > after)
        found = query.subquery()
        first = select(*(found.c[name] for name in PAIRS)).where(found.c.place == 1)
        with self._database.reading("reading paired losses") as connection:
            rows = list(map(tuple, connection.execute(first.order_by(found.c.decision_at))))
        return pl.DataFrame(rows, schema=PAIRS, orient="row")

    def summary(self, wanted: Wanted = EVERYTHING, *, loss: Loss = "squared") -> list[ArmSummary]:
        """What each model did in each slot over the predictions that are `wanted`, in alphabetical order."""
        column, failed = PREDICTIONS.c, PREDICTIONS.c.status >= 500
        nothing = and_(column.predicted_return.is_(None), column.probability_up.is_(None))
        lost = _loss(PREDICTIONS, loss)
        arm = (column.slot, column.model_version, column.shadow)
        nulls = _number_of(and_(column.status < 400, nothing))
        query = select(*arm, func.count(), _number_of(failed), nulls, func.count(lost), func.avg(lost))
        query = query.where(wanted.condition()).group_by(*arm).order_by(*arm)
        with self._database.reading("summing predictions up") as connection:
            return [ArmSummary(*row) for row in connection.execute(query)]


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _loss(table: FromClause, loss: Loss) -> ColumnElement[float | None]:
    """The loss of each row; null where there is no forecast of this kind or no actual return."""
    actual = table.c.actual_return
    if loss == "squared":
        error = table.c.predicted_return - actual
    else:
        error = table.c.probability_up - cast(case((actual > 0, 1), (actual <= 0, 0)), Double)
    return error * error
