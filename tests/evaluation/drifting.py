"""Seeded minute markets whose volatility has a time of day, clusters, and drifts; oracle of the intervals."""

from __future__ import annotations

from typing import Literal

import numpy as np

from marketray.dataset.load import Block

MINUTE_US = 60_000_000
SESSION = 390
HORIZON = 30
EVERY = 5
Drift = Literal["none", "ramp", "jump", "tails"]


def drifting_block(
    sessions: int, drift: Drift, seed: int, *, columns: bool = True, shift: float = 0.0
) -> Block:
    """Rows of every EVERY-th minute with a label of HORIZON minutes inside its session of SESSION minutes.

    Volatility is U-shaped over the session and follows a slow AR(1) of its logarithm. Over the last 40 % of
    the sessions ``ramp`` multiplies it by up to 3, ``jump`` by 3 in half of them before it falls back, and
    ``tails`` draws shocks from Student's t with 3 degrees of freedom. `columns` adds trailing volatilities;
    `shift` is added to every minute's return.
    """
    rng = np.random.default_rng(seed)
    n = sessions * SESSION
    late = np.clip((np.arange(n) / n - 0.6) / 0.4, 0, 1)
    regime = {
        "none": np.ones(n),
        "tails": np.ones(n),
        "ramp": 3**late,
        "jump": np.where((late > 0) & (late < 0.5), 3.0, 1.0),
    }[drift]
    slow = np.zeros(sessions)
    for k in range(1, sessions):
        slow[k] = 0.8 * slow[k - 1] + 0.2 * rng.standard_normal()
    place = np.tile(np.arange(SESSION) / SESSION, sessions)
    sigma = 2e-4 * regime * np.exp(np.repeat(slow, SESSION) + 1.5 * (2 * place - 1) ** 2 - 0.5)
    wild = rng.standard_t(3, n) / np.sqrt(3)
    shocks = np.where((late > 0) & (drift == "tails"), wild, rng.standard_normal(n))
    returns = (sigma * shocks + shift).reshape(sessions, SESSION)
    total = np.cumsum(np.hstack([np.zeros((sessions, 1)), returns]), axis=1)
    kept = np.arange(60, SESSION - HORIZON, EVERY)  # decisions after that many minutes of the session
    y = total[:, kept + HORIZON] - total[:, kept]
    squares = np.cumsum(np.hstack([np.zeros((sessions, 1)), returns**2]), axis=1)
    trailing = [np.sqrt((squares[:, kept] - squares[:, kept - w]) / w).ravel() for w in (20, 60)]
    opens = np.arange(sessions, dtype=np.int64) * 1440 * MINUTE_US
    decision = (opens[:, None] + kept * MINUTE_US).ravel()
    m = len(decision)
    return Block(
        np.array([f"X@{i:07d}" for i in range(m)]),
        decision,
        np.repeat(opens, len(kept)),
        decision + HORIZON * MINUTE_US,
        y.ravel(),
        np.full(m, 100.0),
        ("realized_volatility_20", "realized_volatility_60") if columns else (),
        np.column_stack(trailing).astype(np.float32) if columns else np.empty((m, 0), np.float32),
    )


def folds_of(rows: int) -> list[tuple[slice, slice]]:
    """Three expanding folds of 15 %, purged by two sessions."""
    size, gap = int(0.15 * rows), 2 * SESSION // EVERY
    starts = [rows - (3 - k) * size for k in range(3)]
    return [(slice(0, start - gap), slice(start, start + size)) for start in starts]
