"""The tables of the store, one set for sqlite and PostgreSQL.

Times are UTC to the microsecond: `timestamptz` in PostgreSQL, whole microseconds since 1970 in sqlite, which
has no type of its own for them. A time without zone is refused.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    and_,
    or_,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from marketray.bars import PRICES, VALUES

__all__ = [
    "BARS",
    "DECISIONS",
    "EVENTS",
    "METADATA",
    "PREDICTIONS",
    "ROLLOUTS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "TRAFFIC",
    "UtcTime",
    "awaits_actual",
    "from_micros",
    "to_micros",
]

SCHEMA_VERSION = 1
"""Raised with every change of a table below; a database of another version is refused."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Whole microseconds since 1970 of a time with zone, exact.

    Raises
    ------
    ValueError
        The time has no zone.
    """
    if at.tzinfo is None:
        msg = f"got the time {at.isoformat()} without zone; required: a time with zone"
        raise ValueError(msg)
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC time so many microseconds after 1970."""
    return _EPOCH + micros * _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """A point in time: takes any time with zone, gives UTC, exact to the microsecond."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`timestamptz` where there is one."""
        own: TypeEngine[Any] = TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(own)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        """To the database; a time without zone is a ValueError."""
        if value is None:
            return None
        micros = to_micros(value)
        return from_micros(micros) if dialect.name == "postgresql" else micros

    def process_result_value(self, value: object, _: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else from_micros(int(str(value)))


class Number(TypeDecorator[float]):
    """A double; one that is not finite is stored as null, alike in both databases."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, _: Dialect) -> float | None:
        """To the database."""
        return None if value is None or not math.isfinite(value) else float(value)


class Json(TypeDecorator[Any]):
    """JSON as both databases take it: NaN and infinities, which are none, are refused."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> Any:
        """To the database; a number that is not finite is a ValueError."""
        json.dumps(value, allow_nan=False)
        return value


METADATA = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")  # sqlite counts up in a column of this very type only

SCHEMA = Table("serving_schema", METADATA, Column("version", Integer, nullable=False))

TRAFFIC = Table(
    "serving_traffic",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("who", String, nullable=False),
    Column("action", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("traffic", Json, nullable=False),
)

BARS = Table(
    "serving_bars",
    METADATA,
    Column("arrival", _ID, primary_key=True),
    Column("instrument", String, nullable=False),
    Column("time", UtcTime, nullable=False),
    *(Column(name, Number, nullable=name not in PRICES) for name in VALUES),
    UniqueConstraint("instrument", "time", name="serving_bars_once"),
    sqlite_autoincrement=True,  # numbers of deleted bars do not come again
)

EVENTS = Table(
    "serving_events",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
    Column("payload", Json, nullable=False),
    UniqueConstraint("kind", "key", name="serving_events_once"),
)

PREDICTIONS = Table(
    "serving_predictions",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("slot", String, nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("bars", String, nullable=False),
    Column("model_name", String),
    Column("model_version", Integer),
    Column("catalog_hash", String),
    Column("instrument", String, nullable=False),
    Column("decision_at", UtcTime),
    Column("target_at", UtcTime),
    Column("last_close", Number),
    Column("predicted_return", Number),
    Column("probability_up", Number),
    Column("direction", String),
    Column("features_used", Integer),
    Column("latency_ms", Number),
    Column("status", SmallInteger, nullable=False),
    Column("problem", String),
    Column("client_bucket", SmallInteger),
    Column("actual_return", Number),
    Column("error", Number),
    Column("actual_at", UtcTime),
    Column("actual_reason", String),
    UniqueConstraint("request_id", "slot", "shadow", name="serving_predictions_once"),
    Index("serving_predictions_newest", "at", "id"),
    Index("serving_predictions_scored", "slot", "model_version", "decision_at"),
    sqlite_autoincrement=True,
)

awaits_actual = and_(
    PREDICTIONS.c.actual_at.is_(None),
    PREDICTIONS.c.target_at.is_not(None),
    or_(PREDICTIONS.c.predicted_return.is_not(None), PREDICTIONS.c.probability_up.is_not(None)),
)
"""Of predictions: there is one, for a time that is named, and what came true is not looked up yet."""

Index(
    "serving_predictions_due",
    PREDICTIONS.c.target_at,
    PREDICTIONS.c.id,
    sqlite_where=awaits_actual,
    postgresql_where=awaits_actual,
)

ROLLOUTS = Table(
    "serving_rollouts",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("who", String, nullable=False),
    Column("rollout", Json, nullable=False),
    sqlite_autoincrement=True,
)

DECISIONS = Table(
    "serving_decisions",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("rollout_id", ForeignKey(ROLLOUTS.c.id), nullable=False, index=True),
    Column("at", UtcTime, nullable=False),
    Column("kind", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("numbers", Json, nullable=False),
    Column("reason", String, nullable=False),
    sqlite_autoincrement=True,
)
