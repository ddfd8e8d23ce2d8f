"""Forecasts for tests that need no model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from marketray.serving.answers import Answer, Identity

AT = datetime(2024, 5, 1, 14, 30, tzinfo=UTC)


def forecast(slot: str, value: float | None = 0.001) -> Answer:
    """Decided at `AT` by a slot's model: version 1 in blue, 2 in any other."""
    return Answer(
        body=b"{}",
        identity=Identity(slot, "m", 1 if slot == "blue" else 2),
        catalog_hash="c",
        instrument="X",
        decision_at=AT,
        target_at=AT + timedelta(minutes=30),
        last_close=100.0,
        predicted_return=value,
        probability_up=None,
        direction="down" if value is not None and value < 0 else "up",
        features_used=3,
    )
