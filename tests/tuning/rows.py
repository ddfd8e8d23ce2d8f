"""Seeded rows for the tuning tests."""

from __future__ import annotations

import numpy as np

from marketray.dataset.load import Block


def block(rows: int = 2_000, lags: int = 4, features: int = 4, seed: int = 0) -> Block:
    """A label of sd ~1e-3 that follows return_1_lag_0 and x0."""
    r = np.random.default_rng(seed)
    names = tuple(f"return_1_lag_{k}" for k in range(lags)) + tuple(f"x{k}" for k in range(features))
    X = (r.standard_normal((rows, len(names))) * 1e-3).astype(np.float32)
    y = 0.3 * X[:, lags].astype(float) + 0.2 * X[:, 0] + r.standard_normal(rows) * 1e-3
    minute = np.arange(rows, dtype=np.int64) * 60_000_000
    ids = np.array([f"TST@{k:06d}" for k in range(rows)])
    return Block(ids, minute, minute, minute + 30 * 60_000_000, y, 100 + y, names, X)


def folds(rows: int = 2_000) -> list[tuple[slice, slice]]:
    """Three expanding folds of 15 % with a gap of 30 rows."""
    size = int(rows * 0.15)
    starts = [rows - (3 - k) * size for k in range(3)]
    return [(slice(0, s - 30), slice(s, s + size)) for s in starts]
