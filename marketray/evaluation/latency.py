"""How long a forecast of a single row takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from marketray.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from marketray.models.base import FittedModel

__all__ = ["predict_latency"]

_WARM_UP = 20


def predict_latency(model: FittedModel, values: npt.NDArray[np.float32], rows: int = 500) -> dict[str, Any]:
    """Time `rows` forecasts of one row each, one after the other, after a few that are not counted.

    Parameters
    ----------
    values:
        Rows to forecast from, shape (n, p) with the model's columns; used in turn, again where n < `rows`.
    rows:
        How many forecasts are timed.

    Returns
    -------
    dict
        p50_ms and p99_ms, percentiles of the wall clock of one forecast, and rows.

    Raises
    ------
    DataError
        There is no row.
    """
    if not len(values) or rows < 1:
        msg = f"latency: got {len(values)} rows to time {rows} forecasts; required: at least one of each"
        raise DataError(msg, hint="pass rows of the dataset")
    seconds = np.empty(_WARM_UP + rows)
    for number in range(len(seconds)):
        row = values[number % len(values)][None, :]
        started = time.perf_counter()
        model.predict(row)
        seconds[number] = time.perf_counter() - started
    p50, p99 = 1e3 * np.percentile(seconds[_WARM_UP:], [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "rows": rows}
