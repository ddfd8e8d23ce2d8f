"""A block of rows for tests that need no lake."""

from __future__ import annotations

import numpy as np

from marketray.dataset.load import Block

MINUTE = 60_000_000


def make_block(y: np.ndarray, *, seed: int = 0) -> Block:
    """One row a minute with the feature ``return_1``."""
    n = len(y)
    times = np.arange(n, dtype=np.int64) * MINUTE
    values = np.random.default_rng(seed).normal(size=(n, 1)).astype(np.float32) * 1e-3
    ids = np.array([f"X@{i:06d}" for i in range(n)])
    return Block(ids, times, times, times + MINUTE, y, np.full(n, 100.0), ("return_1",), values)
