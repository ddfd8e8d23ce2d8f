"""Which columns a family learns from, and shares of importance over them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

__all__ = ["lag_columns", "shares", "tree_columns"]

_LAG = re.compile(r"return_1_lag_(\d+)")


def lag_columns(available: Collection[str]) -> tuple[str, ...]:
    """The one-minute return lags ``return_1_lag_0``, … in order, up to the first that is missing."""
    found = {int(m[1]): name for name in available if (m := _LAG.fullmatch(name))}
    count = next((k for k in range(len(found)) if k not in found), len(found))
    return tuple(found[k] for k in range(count))


def tree_columns(available: Collection[str]) -> tuple[str, ...]:
    """All columns but the one-minute return lags, in the given order."""
    return tuple(name for name in available if not _LAG.fullmatch(name))


def shares(columns: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """`weights` (all >= 0) divided by their sum, by column; zeros where the sum is 0."""
    total = float(sum(weights))
    return {c: float(w) / total if total > 0 else 0.0 for c, w in zip(columns, weights, strict=True)}
