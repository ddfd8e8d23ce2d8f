"""Rolling windows as Polars expressions, and the few that Polars lacks as functions of arrays.

Polars' rolling variance gives exactly 0 for a window of equal values whatever came before it. Its rolling
mean adds the new value and takes the old one away with a compensated sum; a flat hour after a limit move
then shows 1e-22 instead of 0. That is nothing to a feature that is linear in the mean, and decides one
that takes a root of it or compares it with 0: those use `mean_size` and `root_mean_square`.

The functions `window_*` take one-dimensional float64 arrays with NaN where a value is missing; a window
that holds a NaN, or is not full yet, is NaN. In expressions missing is null.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.hashing import digest

__all__ = [
    "absolute_deviation",
    "array_function",
    "bars_since_maximum",
    "decay_lookback",
    "deviation",
    "mean",
    "mean_size",
    "root_mean_square",
    "share_at_most",
    "standard_deviation",
    "weighted_sum",
    "wilder_mean",
    "window_absolute_deviation",
    "window_age_of_maximum",
    "window_share_at_most",
    "window_weighted_sum",
]

_ROWS_AT_ONCE = 8_192  # 64 KiB of values stay in the cache

Float64Array = npt.NDArray[np.float64]

_FORGOTTEN = 1e-16  # weight below which a recursive mean no longer knows its start


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
    out = np.full(len(values), np.nan)
    if len(values) == window:  # one row
        apart = values - values[0]
        out[-1] = np.abs(apart - apart.mean()).mean()
        return out
    center = pl.Series(values).fill_nan(None).rolling_mean(window).to_numpy()
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
    out = np.full(len(values), np.nan)
    if len(values) - window < window // every:  # fewer rows than values in a window
        for t in range(window - 1, len(values)):
            past = values[t - window + every : t + 1 : every]
            out[t] = np.count_nonzero(past <= past[-1]) / len(past)
    else:
        for start in range(window - 1, len(values), _ROWS_AT_ONCE):
            end = min(start + _ROWS_AT_ONCE, len(values))
            count = np.zeros(end - start, dtype=np.int16)
            for k in range(0, window, every):
                count += values[start - k : end - k] <= values[start:end]
            out[start:end] = count / (window // every)
    gaps = np.concatenate([[0], np.cumsum(np.isnan(values))])
    out[window - 1 :][gaps[window:] > gaps[:-window]] = np.nan
    return out


def mean(expression: pl.Expr, window: int) -> pl.Expr:
    """Mean over the last `window` bars, the current one included; null where one of them is missing.

    Its rounding is that of the largest value that ever passed, about 1e-20 of it: right for every linear
    use, but not under a root and not to be compared with 0; see `mean_size`.
    """
    return expression.rolling_mean(window)


def mean_size(expression: pl.Expr, window: int) -> pl.Expr:
    """Mean of values that are at least 0 over the last `window` bars; exactly 0 where all of them are."""
    return expression.rolling_mean(window).clip(lower_bound=0.0) * (expression.rolling_max(window) > 0)


def root_mean_square(expression: pl.Expr, window: int) -> pl.Expr:
    """Root of the mean square over the last `window` bars; exactly 0 where all values are."""
    flat = expression.rolling_mean(window) * (expression.abs().rolling_max(window) > 0)
    return (expression.rolling_var(window, ddof=0) + flat**2).sqrt()


def deviation(expression: pl.Expr, window: int) -> pl.Expr:
    """Value minus its mean over the last `window` bars, the current one included."""
    return expression - expression.rolling_mean(window)


def standard_deviation(expression: pl.Expr, window: int, ddof: int = 1) -> pl.Expr:
    """Standard deviation over the last `window` bars, the current one included; exactly 0 of equal values."""
    return expression.rolling_std(window, ddof=ddof)


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


_functions: dict[str, tuple[partial[Float64Array], int]] = {}
"""Functions of windows, and their windows, by the name that an expression gives to their input."""


def array_function(name: str) -> tuple[partial[Float64Array], int] | None:
    """The function that an expression of this module applies to its input, and its window.

    `name` is the input's, as the expression gives it; None where no expression in this process has it.
    """
    return _functions.get(name)


def _apply(expression: pl.Expr, function: partial[Float64Array]) -> pl.Expr:
    """The expression of a function of a window; its input is given the function's name."""
    given = function.keywords
    weights = given.get("weights", ())
    name = f"{function.func.__name__} of {digest([*weights], [given[k] for k in given if k != 'weights'])}"
    _functions[name] = function, given.get("window", len(weights))

    def evaluate(series: pl.Series) -> pl.Series:
        values = series.cast(pl.Float64).to_numpy()
        return pl.Series(series.name, function(values), nan_to_null=True)

    return expression.alias(name).map_batches(evaluate, return_dtype=pl.Float64)
