"""Rolling windows whose rounding never depends on what happened before the window.

A running sum that adds the new value and takes the old one away carries the rounding error of a spike
for ever: a flat hour after a limit move then shows a volatility of 1e-10 instead of 0, and another cut
of the same data shows another one. Here every window is the sum of two partial sums, the tail of one
block and the head of the next (van Herk 1992, for sums instead of maxima), so only values inside the
window enter, the cost per row does not depend on the window, and sums of equal or zero values are
exact.

All functions take one-dimensional float64 arrays with NaN where a value is missing; a window that
holds a NaN, or is not full yet, is NaN. The expression functions of the same purpose wrap them for
Polars, where missing is null.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = [
    "absolute_deviation",
    "bars_since_maximum",
    "decay_lookback",
    "deviation",
    "mean",
    "share_at_most",
    "standard_deviation",
    "weighted_sum",
    "wilder_mean",
    "window_absolute_deviation",
    "window_age_of_maximum",
    "window_deviation",
    "window_share_at_most",
    "window_sum",
    "window_variance",
    "window_weighted_sum",
]

_ROWS_AT_ONCE = 8_192  # 64 KiB of values stay in the cache

Float64Array = npt.NDArray[np.float64]

_FORGOTTEN = 1e-16  # weight below which a recursive mean no longer knows its start


def window_sum(values: Float64Array, window: int) -> Float64Array:
    """Sum over (t - window, t], shape (n,); NaN for the first window - 1 rows."""
    blocks = _blocks(values, window)
    head = np.cumsum(blocks, axis=1)
    tail = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1]
    return _join(head, tail, len(values), window)


def window_variance(values: Float64Array, window: int, ddof: int) -> Float64Array:
    """Variance over (t - window, t], shape (n,); deviations are taken from a value inside the window.

    The relative error is at most about 2 * window² * 2.2e-16, and a window of equal values gives
    exactly 0.
    """
    blocks = _blocks(values, window)
    reference = blocks[:, :1]
    ahead = np.concatenate([reference[1:], np.zeros((1, 1))])
    heads = blocks - reference
    tails = (blocks - ahead)[:, ::-1]
    total = _join(np.cumsum(heads, axis=1), np.cumsum(tails, axis=1)[:, ::-1], len(values), window)
    square = _join(np.cumsum(heads**2, axis=1), np.cumsum(tails**2, axis=1)[:, ::-1], len(values), window)
    return np.maximum(square - total**2 / window, 0.0) / (window - ddof)


def window_deviation(values: Float64Array, window: int) -> Float64Array:
    """Value minus the mean over (t - window, t], shape (n,), without cancellation of large numbers."""
    blocks = _blocks(values, window)
    reference = blocks[:, :1]
    ahead = np.concatenate([reference[1:], np.zeros((1, 1))])
    heads = blocks - reference
    tails = (blocks - ahead)[:, ::-1]
    total = _join(np.cumsum(heads, axis=1), np.cumsum(tails, axis=1)[:, ::-1], len(values), window)
    return heads.reshape(-1)[: len(values)] - total / window


def window_weighted_sum(values: Float64Array, weights: Float64Array) -> Float64Array:
    """Sum of weights[k] * values[t - k], shape (n,); NaN until len(weights) values are there."""
    out = np.full(len(values), np.nan)
    if len(values) >= len(weights):
        out[len(weights) - 1 :] = np.convolve(values, weights, mode="valid")
    return out


def window_absolute_deviation(values: Float64Array, window: int) -> Float64Array:
    """Mean of |value - mean of the window| over (t - window, t], shape (n,).

    The cost per row grows with the window; rows are taken a cache's length at a time.
    """
    center = window_sum(values, window) / window
    out = np.full(len(values), np.nan)
    for start in range(window - 1, len(values), _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, len(values))
        total = np.zeros(end - start)
        for k in range(window):
            total += np.abs(values[start - k : end - k] - center[start:end])
        out[start:end] = total / window
    return out


def window_age_of_maximum(values: Float64Array, window: int) -> Float64Array:
    """Rows since the largest value of (t - window, t], shape (n,); of equal ones the latest counts.

    The cost per row grows with the window.
    """
    out = np.full(len(values), np.nan)
    if len(values) >= window:
        latest_first = np.lib.stride_tricks.sliding_window_view(values[::-1], window)[::-1]
        age = latest_first.argmax(axis=1)  # a NaN counts as the largest
        found = values[np.arange(window - 1, len(values)) - age]
        out[window - 1 :] = np.where(np.isnan(found), np.nan, age)
    return out


def window_share_at_most(values: Float64Array, window: int, every: int) -> Float64Array:
    """Share of the values at t, t - every, … within (t - window, t] that are <= the one at t, shape (n,).

    `window` is a multiple of `every`; rows are taken a cache's length at a time.
    """
    count = np.zeros(len(values))
    for start in range(window - 1, len(values), _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, len(values))
        for k in range(0, window, every):
            count[start:end] += values[start - k : end - k] <= values[start:end]
    return np.where(np.isnan(window_sum(values, window)), np.nan, count / (window // every))


def mean(expression: pl.Expr, window: int) -> pl.Expr:
    """Mean over the last `window` bars, the current one included."""
    return _apply(expression, partial(window_sum, window=window)) / window


def deviation(expression: pl.Expr, window: int) -> pl.Expr:
    """Value minus its mean over the last `window` bars, the current one included."""
    return _apply(expression, partial(window_deviation, window=window))


def standard_deviation(expression: pl.Expr, window: int, ddof: int = 1) -> pl.Expr:
    """Standard deviation over the last `window` bars, the current one included."""
    return _apply(expression, partial(window_variance, window=window, ddof=ddof)).sqrt()


def weighted_sum(expression: pl.Expr, weights: Float64Array) -> pl.Expr:
    """Sum of weights[k] * value k bars ago."""
    return _apply(expression, partial(window_weighted_sum, weights=weights))


def absolute_deviation(expression: pl.Expr, window: int) -> pl.Expr:
    """Mean absolute deviation from the mean over the last `window` bars, the current one included."""
    return _apply(expression, partial(window_absolute_deviation, window=window))


def bars_since_maximum(expression: pl.Expr, window: int) -> pl.Expr:
    """Bars since the largest of the last `window` values, 0 to window - 1; the latest of equal ones."""
    return _apply(expression, partial(window_age_of_maximum, window=window))


def share_at_most(expression: pl.Expr, window: int, every: int) -> pl.Expr:
    """Share of every `every`-th of the last `window` values, the current one included, that are <= it."""
    return _apply(expression, partial(window_share_at_most, window=window, every=every))


def wilder_mean(expression: pl.Expr, period: int) -> pl.Expr:
    """Wilder's smoothing m += (x - m) / period (Wilder 1978), started at the first value."""
    return expression.ewm_mean(alpha=1 / period, adjust=False, ignore_nulls=True)


def decay_lookback(alpha: float) -> int:
    """Bars after which a recursive mean with weight `alpha` has forgotten where it was started.

    The start's weight (1 - alpha)^n is then below 1e-16, under the rounding of the values themselves.
    """
    return math.ceil(math.log(_FORGOTTEN) / math.log1p(-alpha))


def _apply(expression: pl.Expr, function: partial[Float64Array]) -> pl.Expr:
    def evaluate(series: pl.Series) -> pl.Series:
        values = series.cast(pl.Float64).to_numpy()
        return pl.Series(series.name, function(values), nan_to_null=True)

    return expression.map_batches(evaluate, return_dtype=pl.Float64)


def _blocks(values: Float64Array, window: int) -> Float64Array:
    rows = -(-len(values) // window)
    padded = np.zeros(rows * window)
    padded[: len(values)] = values
    return padded.reshape(rows, window)


def _join(head: Float64Array, tail: Float64Array, size: int, window: int) -> Float64Array:
    """Add to the head ending at t the tail starting at t - window + 1, where that is one block before."""
    tail = np.ascontiguousarray(tail)
    tail[:, :1] = 0.0  # a window that starts a block is its whole head
    out = np.full(size, np.nan)
    if size >= window:
        out[window - 1 :] = head.reshape(-1)[window - 1 : size] + tail.reshape(-1)[: size - window + 1]
    return out
