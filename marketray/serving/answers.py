"""What a slot answers: a forecast as the bytes that clients get, and what the service itself must know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from marketray.serving.schemas import Evidence, Forecasted, Interval

if TYPE_CHECKING:
    import numpy.typing as npt

    from marketray.serving.forecaster import Forecast, Forecaster, Row

__all__ = ["Answer", "Batch", "Identity", "answer"]

_INTERVAL_LEVEL = 0.8


@dataclass(frozen=True)
class Identity:
    """Which version stands in which slot."""

    slot: str
    model_name: str
    model_version: int


@dataclass(frozen=True)
class Answer:
    """A forecast.

    Attributes
    ----------
    body:
        JSON of `marketray.serving.schemas.Forecasted`, written once, however often it is asked for.
    identity, catalog_hash:
        What made it.
    decision_at, target_at, last_close, predicted_return, probability_up, direction, features_used:
        As in the body, for the record of what was said.
    """

    body: bytes
    identity: Identity
    catalog_hash: str
    instrument: str
    decision_at: datetime
    target_at: datetime
    last_close: float
    predicted_return: float | None
    probability_up: float | None
    direction: str
    features_used: int

    def document(self, request_id: str, latency_ms: float) -> bytes:
        """JSON of `PredictResponse`; `request_id` is printable ASCII."""
        quoted = request_id.replace("\\", "\\\\").replace('"', '\\"')
        return b'%b,"request_id":"%b","latency_ms":%.3f}' % (self.body[:-1], quoted.encode(), latency_ms)


class Batch(NamedTuple):
    """What a model says of rows of features: /model-info's content, and its values, shape (n,)."""

    info: dict[str, Any]
    values: npt.NDArray[Any]


def answer(identity: Identity, forecaster: Forecaster, row: Row, forecast: Forecast) -> Answer:
    """The answer to whoever asks for the forecast of `row`."""
    card = forecaster.card
    r = forecast.predicted_return
    intervals = [
        Interval(level=level, low=row.last_close * (1 + low), high=row.last_close * (1 + high))
        for level, low, high in forecast.intervals
    ]
    target_at = row.decision_at + timedelta(minutes=card.horizon_minutes)
    said = Forecasted(
        timestamp=row.decision_at,
        target_at=target_at,
        instrument=card.instrument,
        horizon_minutes=card.horizon_minutes,
        last_close=row.last_close,
        prediction=None if r is None else row.last_close * (1 + r),
        predicted_return=r,
        direction=forecast.direction,
        confidence=forecast.confidence,
        probability_up=forecast.probability_up,
        interval=next((i for i in intervals if i.level == _INTERVAL_LEVEL), None),
        intervals=intervals or None,
        features_used=len(card.columns),
        model_version=identity.model_version,
        model_type=card.model_type,
        slot=identity.slot,
        test_rmse_pct=card.test_rmse_pct,
        feature_catalog=card.catalog_hash,
        evidence=Evidence.model_validate(card.evidence.model_dump()),
    )
    return Answer(
        body=said.model_dump_json().encode(),
        identity=identity,
        catalog_hash=card.catalog_hash,
        instrument=card.instrument,
        decision_at=row.decision_at,
        target_at=target_at,
        last_close=row.last_close,
        predicted_return=r,
        probability_up=forecast.probability_up,
        direction=forecast.direction,
        features_used=len(card.columns),
    )
