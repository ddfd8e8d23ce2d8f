"""Predictions to store in tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from marketray.serving.store.predictions import PredictionRow

START = datetime(2024, 5, 1, 14, 30, tzinfo=UTC)
HORIZON = timedelta(minutes=30)


def row(name: object, **changes: Any) -> PredictionRow:
    """A prediction of version 1 in blue at `START`, for the request `name`, with some fields changed."""
    decision_at = changes.get("decision_at", START)
    values: dict[str, Any] = {
        "request_id": str(name),
        "at": (decision_at or START) + timedelta(seconds=1),
        "slot": "blue",
        "instrument": "SPX500_USD",
        "model_name": "marketray-SPX500_USD",
        "model_version": 1,
        "catalog_hash": "c0ffee",
        "decision_at": decision_at,
        "target_at": decision_at and decision_at + HORIZON,
        "last_close": 5000.25,
        "predicted_return": 0.001,
        "probability_up": 0.53,
        "direction": "up",
        "features_used": 7,
        "latency_ms": 1.25,
        "client_bucket": 17,
    }
    return PredictionRow(**{**values, **changes})
