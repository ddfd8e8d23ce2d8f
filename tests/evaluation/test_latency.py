"""Latency of single-row forecasts, against a model that takes a known time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.evaluation.latency import predict_latency


class Slow:
    """Takes 2 ms for a row, 20 ms for every twentieth; slower while it warms up."""

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()
        self.calls = 0
        self.firsts: list[float] = []

    def predict(self, X: Any) -> Any:
        self.shapes.add(X.shape)
        self.firsts.append(float(X[0, 0]))
        self.calls += 1
        time.sleep(0.05 if self.calls <= 2 else 0.02 if self.calls % 20 == 0 else 0.002)
        return np.zeros(1)


def test_percentiles_of_single_rows_after_warming_up() -> None:
    model = Slow()
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = predict_latency(model, values, rows=100)  # type: ignore[arg-type]
    assert (found["rows"], model.calls, model.shapes) == (100, 120, {(1, 2)})
    assert model.firsts[:4] == [0.0, 2.0, 4.0, 0.0]
    assert 2.0 <= found["p50_ms"] < 20.0
    assert found["p99_ms"] >= 20.0


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="latency: got 0 rows to time 500 forecasts; required: at least one"):
        predict_latency(Slow(), np.zeros((0, 2), np.float32))  # type: ignore[arg-type]
