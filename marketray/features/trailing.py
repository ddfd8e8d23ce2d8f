"""What the nodes of `marketray.features.tree` compute from rows before those that they are wanted at.

Operands are those of `marketray.features.numeric`. Windows are computed in two passes over their own values.
What is rare is left to Polars: windows with nulls or NaN, and recursive means wanted at several bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from marketray.features.numeric import FALSE, Operand, Operation, pointwise
from marketray.features.tree import Node
from marketray.features.windows import array_function

__all__ = ["operation"]

_FEW = 8_192  # values that are windowed faster here than by a call of Polars
_BLOCK = 32


def _series(a: Operand) -> pl.Series:
    values = pl.Series(a[0])
    return values if a[1] is None else values.set(~pl.Series(a[1]), None)


def _tail(found: pl.Series, count: int) -> Operand:
    found = found.tail(count)
    x = found.to_numpy()
    p = found.is_not_null().to_numpy() if found.null_count() else None
    return (x, p) if count > 1 else (x[0], None if p is None else p[0])


def _mean(x: Any) -> Any:
    first = x[0]
    return first + np.add.reduce(x - first) / len(x)


def _variance(ddof: int, x: Any) -> Any:
    apart = x - x[0]  # exactly 0 throughout where all values are equal
    apart -= np.add.reduce(apart) / len(x)
    return np.add.reduce(apart * apart) / (len(x) - ddof)


def _quantile(share: float, x: Any) -> Any:
    ordered = np.sort(x, axis=0)  # a NaN comes last
    place = share * (len(x) - 1)
    low = int(place)
    high = min(low + 1, len(x) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low) + 0 * ordered[-1]


_ALONG: dict[str, Callable[..., Any]] = {
    "Mean": _mean,
    "Sum": np.add.reduce,
    "Max": np.maximum.reduce,
    "Min": np.minimum.reduce,
    "Var": _variance,
    "Std": lambda ddof, x: np.sqrt(_variance(ddof, x)),
    "Quantile": _quantile,
}
"""Statistics along the first axis."""


def _by_polars(name: str, window: int, *extra: Any) -> Callable[[pl.Series], pl.Series]:
    if name == "Quantile":
        return lambda s: s.rolling_quantile(extra[0], interpolation="linear", window_size=window)
    options = {"ddof": extra[0]} if extra else {}
    return lambda s: getattr(s, f"rolling_{name.lower()}")(window, **options)


def _rolling(count: int, name: str, window: int, *extra: Any) -> Operation:
    along, rare = partial(_ALONG[name], *extra), _by_polars(name, window, *extra)

    def last(a: Operand) -> Operand:
        x, p = a
        if p is not None and not p.all():
            return np.float64(math.nan), FALSE
        found = along(x)
        return (found, None) if math.isfinite(found) else _tail(rare(_series(a)), 1)

    def several(a: Operand) -> Operand:
        x, p = a
        if p is None:
            x = np.ascontiguousarray(x)
            found = along(np.ndarray((window, count), x.dtype, x, 0, x.strides * 2))
            if np.isfinite(found).all():
                return found, None
        return _tail(rare(_series(a)), count)

    many = count * window > _FEW
    return last if count == 1 else (lambda a: _tail(rare(_series(a)), count)) if many else several


def _recursive(
    mean: bool, count: int, length: int, alpha: float, adjust: bool, bias: bool, least: int, skip: bool
) -> Operation:
    options: dict[str, Any] = {
        "alpha": alpha,
        "adjust": adjust,
        "min_samples": least,
        "ignore_nulls": skip,
    }
    weights = (1 - alpha) ** np.arange(length - 1, -1, -1.0)
    if adjust:
        weights /= weights.sum()
    else:
        weights[1:] *= alpha

    recursion = _recursion(alpha)

    def last(a: Operand) -> Operand:
        x, p = a
        found = weights.dot(x)
        if p is None and least <= length and math.isfinite(found):
            return found, None
        return several(a)

    def all_known(a: Operand) -> Operand:
        x, p = a
        if p is None and least <= 1:
            found = recursion(x)
            if np.isfinite(found).all():
                return found[-count:], None
        return several(a)

    def several(a: Operand) -> Operand:
        return _tail(_series(a).ewm_mean(**options), count)

    if mean:
        return last if count == 1 else several if adjust else all_known
    return lambda a: _tail(_series(a).ewm_std(bias=bias, **options), count)


def _recursion(alpha: float) -> Callable[[Any], Any]:
    """m += alpha (x - m) from the first value on: blocks by one product, then what each hands to the next."""
    kept = (1 - alpha) ** np.arange(_BLOCK + 1.0)
    lags = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    weights = np.where(lags >= 0, alpha * kept[np.abs(lags)], 0.0).T
    over = float(kept[-1])

    def run(x: Any) -> Any:
        blocks = np.concatenate([np.full(-len(x) % _BLOCK, x[0]), x]).reshape(-1, _BLOCK) @ weights
        handed = [float(x[0])]
        for end in blocks[:-1, -1].tolist():
            handed.append(handed[-1] * over + end)
        return (blocks + np.multiply.outer(handed, kept[1:])).ravel()[-len(x) :]

    return run


def _array(count: int, name: str, *_: int) -> Operation:
    found = array_function(name)
    assert found is not None
    function = found[0]

    def run(a: Operand) -> Operand:
        x, p = a
        y = function(x if p is None else np.where(p, x, np.nan))
        known = ~np.isnan(y)
        return (y[-1], known[-1]) if count == 1 else (y[-count:], known[-count:])

    return run


def _forward(count: int) -> Operation:
    def run(a: Operand) -> Operand:
        x, p = a
        if p is None:
            return (x[-1] if count == 1 else x[-count:]), None
        found = np.maximum.accumulate(np.where(p, np.arange(len(x)), -1))
        found = found[-1] if count == 1 else found[-count:]
        return x[found], found >= 0

    return run


def _search(column: Operand, wanted: Operand) -> Operand:
    """Insertion point after equal times, counted from the end: the same wherever the column begins."""
    times, p = column
    if p is not None:
        times = times[p]
    return np.searchsorted(times, wanted[0], side="right") - len(times), wanted[1]


def _over(count: int, name: str) -> Operation:
    """The session's bars so far; all bars outside sessions are one group."""

    def last(a: Operand, session: Operand) -> Operand:
        (x, p), (s, q) = a, session
        chosen = s == s[-1] if q is None else (s == s[-1]) & q if q[-1] else ~q
        if name == "Count":
            return np.int64(np.count_nonzero(chosen)), None
        if name == "First":
            first = int(chosen.argmax())
            return x[first], None if p is None else p[first]
        if p is not None:
            chosen = chosen & p
            if not p[-1]:
                return np.float64(math.nan), FALSE
        within = x[chosen]
        found = {"CumSum": np.add, "CumMax": np.fmax, "CumMin": np.fmin}[name].reduce(within)
        return found, None

    def run(a: Operand, session: Operand) -> Operand:
        if count == 1:
            return last(a, session)
        cuts = range(len(session[0]) - count + 1, len(session[0]) + 1)
        rows = [last(_head(a, n), _head(session, n)) for n in cuts]
        return np.array([x for x, _ in rows]), np.array([p is None or p for _, p in rows])

    return run


def _head(a: Operand, count: int) -> Operand:
    return a[0][:count], None if a[1] is None else a[1][:count]


_TRAILING: dict[str, Callable[..., Operation]] = {
    "rolling": _rolling,
    "array": _array,
    "forward": _forward,
    "over": _over,
}


def operation(node: Node, count: int, length: int) -> Operation:
    """The function of a node for `count` values, from `length` values of its first operand."""
    found = pointwise(node)
    if found is not None:
        return found
    if node.op == "search":
        return _search
    if node.op in _TRAILING:
        return _TRAILING[node.op](count, *node.params)
    params: Any = node.params
    return _recursive(node.op == "EwmMean", count, length, *params)
