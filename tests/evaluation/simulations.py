"""Seeded markets with overlapping labels, for the size and the power of the tests of skill."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HORIZON = 30


def garch(rng: np.random.Generator, n: int, paths: int, *, burn: int = 300) -> Array:
    """GARCH(1,1) returns with Student t₆ shocks and unit variance, shape (n, paths)."""
    a, b = 0.05, 0.94
    shocks = rng.standard_t(6, (n + burn, paths)) / np.sqrt(1.5)
    out, variance = np.empty_like(shocks), np.ones(paths)
    for i in range(n + burn):
        out[i] = np.sqrt(variance) * shocks[i]
        variance = 1 - a - b + a * out[i] ** 2 + b * variance
    return out[burn:]


def ar1(rng: np.random.Generator, n: int, paths: int, phi: float) -> Array:
    """AR(1) forecasts of unit variance, started from their own distribution, shape (n, paths)."""
    out = rng.standard_normal((n, paths))
    for i in range(1, n):
        out[i] = phi * out[i - 1] + np.sqrt(1 - phi**2) * out[i]
    return out


def overlapping_labels(rng: np.random.Generator, n: int, paths: int) -> Array:
    """Sums over the HORIZON minutes that follow each minute, shape (n, paths)."""
    total = np.vstack([np.zeros((1, paths)), np.cumsum(garch(rng, n + HORIZON, paths), axis=0)])
    return total[HORIZON : HORIZON + n] - total[:n]
