"""Forecasts of which it is known what came true, one a decision."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import polars as pl
from sqlalchemy import func, select

from marketray.serving.store.tables import PREDICTIONS

if TYPE_CHECKING:
    from marketray.serving.store.database import Database
    from marketray.serving.store.scores import Arm

__all__ = ["answered"]

_SCHEMA = {"decision_at": pl.Datetime("us", "UTC"), "actual": pl.Float64(), "forecast": pl.Float64()}


def answered(
    database: Database,
    instrument: str,
    arm: Arm,
    forecast: Literal["predicted_return", "probability_up"],
    after: datetime,
) -> pl.DataFrame:
    """Decisions of a model in a slot after `after`, sorted, with `forecast` and the actual return.

    However many callers asked, a decision counts once, with its first answer, seen or as the shadow. Answers
    from callers' own bars are left out.
    """
    column = PREDICTIONS.c
    first = (
        select(func.min(column.id))
        .where(column.slot == arm.slot, column.model_version == arm.version, column.decision_at > after)
        .where(column.instrument == instrument, column.bars == "state")
        .where(column.actual_return.is_not(None), column[forecast].is_not(None))
        .group_by(column.decision_at)
    )
    query = select(column.decision_at, column.actual_return, column[forecast]).where(column.id.in_(first))
    with database.reading("reading what came true") as connection:
        rows = list(map(tuple, connection.execute(query.order_by(column.decision_at))))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")
