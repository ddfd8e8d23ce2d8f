"""Simulated markets for the sequential test: fat tails, clustered volatility, overlapping labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PERSISTENCE = 0.98
"""Of the forecasts, from minute to minute."""


def markets(seed: int, paths: int, decisions: int, horizon: int, r2: float) -> tuple[FloatArray, FloatArray]:
    """Labels and their expectations at the decision, both (paths, decisions), a decision each minute.

    Minute returns are t(4) noise with GARCH(1, 1) volatility around an AR(1) drift that a perfect model
    knows; a label is the sum of the next `horizon` returns, whose share `r2` the expectation explains.
    """
    rng = np.random.default_rng(seed)
    steps = decisions + horizon
    shock = rng.standard_t(4, (steps, paths)) / np.sqrt(2)
    news = np.sqrt(1 - PERSISTENCE**2) * rng.standard_normal((steps, paths))
    reach = sum(PERSISTENCE**k for k in range(horizon))
    size = np.sqrt(r2 * horizon / (1 - r2)) / reach
    returns, drifts = np.empty((2, steps, paths))
    variance, drift = np.ones(paths), rng.standard_normal(paths)
    for t in range(steps):
        noise = np.sqrt(variance) * shock[t]
        drifts[t], returns[t] = drift, noise + size * drift
        variance = 0.02 + 0.08 * noise**2 + 0.9 * variance
        drift = PERSISTENCE * drift + news[t]
    total = np.cumsum(np.vstack([np.zeros(paths), returns]), axis=0)
    labels = total[horizon:] - total[:-horizon]
    return labels[:decisions].T, (size * reach * drifts[:decisions]).T
