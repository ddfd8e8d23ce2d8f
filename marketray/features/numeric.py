"""What the nodes of `marketray.features.tree` compute, on the last values of their operands.

An operand is a pair: its values, and which of them are not null. The values are a NumPy scalar where one is
wanted, else an array, oldest first; the second part is None where none is null, else a bool or an array of
them. Null, NaN and infinity are told apart as Polars does: NaN equals itself and is above every number.

Windows are computed in two passes over their own values. What is rare is left to Polars: windows with nulls
or NaN, and recursive means wanted at several bars.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from marketray.features.tree import Node
from marketray.features.windows import array_function

__all__ = ["FALSE", "Operand", "Operation", "operation"]

Operand: TypeAlias = tuple[Any, Any]
Operation: TypeAlias = Callable[..., Operand]

FALSE = np.False_
_MINUTE, _HOUR, _DAY = 60_000_000, 3_600_000_000, 86_400_000_000
_FEW = 8_192  # values that are windowed faster here than by a call of Polars
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (the wall clock's, whatever the zone)


def _both(p: Any, q: Any) -> Any:
    return p if q is None else q if p is None else p & q


def _of_one(function: Callable[[Any], Any]) -> Operation:
    return lambda a: (function(a[0]), a[1])


def _of_two(function: Callable[[Any, Any], Any]) -> Operation:
    def run(a: Operand, b: Operand) -> Operand:
        p, q = a[1], b[1]
        return function(a[0], b[0]), p if q is None else q if p is None else p & q

    return run


def _each(function: Callable[[float], float]) -> Operation:
    """By the C library, as Polars: NumPy's own differ from it in the last bit."""

    def run(a: Operand) -> Operand:
        x, p = a
        if isinstance(x, np.ndarray):
            return np.array([function(v) for v in x.tolist()]), p
        return np.float64(function(x)), p

    return run


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _wave(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: function(x) if math.isfinite(x) else math.nan


def _greater(a: Any, b: Any) -> Any:
    return ~(a <= b) & (b == b)


def _at_least(a: Any, b: Any) -> Any:
    return (a >= b) | (a != a)


def _equal(a: Any, b: Any) -> Any:
    return (a == b) | ((a != a) & (b != b))


def _and(a: Operand, b: Operand) -> Operand:
    (x, p), (y, q) = a, b
    if p is None and q is None:
        return x & y, None
    p, q = True if p is None else p, True if q is None else q
    true = x & p & y & q
    return true, true | (~x & p) | (~y & q)


def _or(a: Operand, b: Operand) -> Operand:
    (x, p), (y, q) = a, b
    if p is None and q is None:
        return x | y, None
    p, q = True if p is None else p, True if q is None else q
    true = (x & p) | (y & q)
    return true, true | (~x & p & ~y & q)


def _differs(a: Operand, b: Operand) -> Operand:
    """Not equal, where null equals null and nothing else."""
    (x, p), (y, q) = a, b
    unequal = ~_equal(x, y)
    if p is None and q is None:
        return unequal, None
    p, q = np.bool_(True) if p is None else p, np.bool_(True) if q is None else q
    return (unequal & p & q) | (p ^ q), None


def _choose(c: Operand, t: Operand, f: Operand) -> Operand:
    """`t` where the condition holds, `f` where it does not or is null."""
    holds = c[0] if c[1] is None else c[0] & c[1]
    if not isinstance(holds, np.ndarray):
        return t if holds else f
    x = np.where(holds, t[0], f[0])
    if t[1] is None and f[1] is None:
        return x, None
    known = np.where(holds, True if t[1] is None else t[1], True if f[1] is None else f[1])
    return x, None if known.all() else known


def _extreme(function: Any) -> Operation:
    """Largest or smallest of several columns, over nulls and NaN."""

    def pair(a: Operand, b: Operand) -> Operand:
        (x, p), (y, q) = a, b
        found = function(x, y)
        if p is None and q is None:
            return found, None
        p, q = True if p is None else p, True if q is None else q
        return np.where(p & q, found, np.where(p, x, y))[()], np.bool_(p | q) if np.ndim(x) == 0 else p | q

    def run(*operands: Operand) -> Operand:
        found = operands[0]
        for other in operands[1:]:
            found = pair(found, other)
        return found

    return run


def _clip(low: float | None, high: float | None) -> Operation:
    def run(a: Operand) -> Operand:
        x = a[0] if low is None else np.maximum(a[0], low)
        return x if high is None else np.minimum(x, high), a[1]

    return run


def _known(flag: bool) -> Operation:
    def run(a: Operand) -> Operand:
        x, p = a
        found = p if p is not None else np.ones(len(x), bool) if isinstance(x, np.ndarray) else np.bool_(True)
        return found if flag else ~found, None

    return run


def _fill(value: bool) -> Operation:
    return lambda a: a if a[1] is None else (np.where(a[1], a[0], value)[()], None)


def _cast(kind: str) -> Operation:
    return _of_one(np.float64 if kind == "float" else np.int64)


def _literal(kind: str, value: Any) -> Operand:
    if kind == "null":
        return np.float64(math.nan), FALSE
    return {"float": np.float64, "bool": np.bool_}.get(kind, np.int64)(value), None


def _part(name: str) -> Operation:
    """A part of a UTC time, as Polars' `dt` gives it; weekdays count from Monday, 1."""

    def month(x: Any) -> Any:
        return x.astype("M8[us]").astype("M8[M]")

    def number(x: Any) -> Any:
        return month(x).astype(np.int64) % 12

    def length(x: Any) -> Any:
        return ((month(x) + 1).astype("M8[D]") - month(x).astype("M8[D]")).astype(np.int64)

    parts: dict[str, Callable[[Any], Any]] = {
        "Hour": lambda x: x // _HOUR % 24,
        "Minute": lambda x: x // _MINUTE % 60,
        "WeekDay": lambda x: (x // _DAY + 3) % 7 + 1,  # the epoch was a Thursday
        "Day": lambda x: (x.astype("M8[us]").astype("M8[D]") - month(x).astype("M8[D]")).astype(np.int64) + 1,
        "Month": lambda x: number(x) + 1,
        "Quarter": lambda x: number(x) // 3 + 1,
        "DaysInMonth": length,
    }
    return _of_one(parts[name])


def _wall(zone: str) -> Operation:
    """Microseconds since the epoch on the zone's wall clock."""
    place = ZoneInfo(zone)

    def shift(us: int) -> int:
        utc = (_EPOCH + timedelta(microseconds=us)).replace(tzinfo=ZoneInfo("UTC"))
        offset = utc.astimezone(place).utcoffset()
        assert offset is not None
        return us + offset // timedelta(microseconds=1)

    def run(a: Operand) -> Operand:
        if isinstance(a[0], np.ndarray):
            return np.array([shift(v) for v in a[0].tolist()]), a[1]
        return np.int64(shift(int(a[0]))), a[1]

    return run


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


def _recursive_mean(
    count: int, length: int, alpha: float, adjust: bool, bias: bool, least: int, skip: bool
) -> Operation:
    weights = (1 - alpha) ** np.arange(length - 1, -1, -1.0)
    if adjust:
        weights /= weights.sum()
    else:
        weights[1:] *= alpha

    def run(a: Operand) -> Operand:
        x, p = a
        if count == 1 and p is None and least <= length:
            found = weights.dot(x)
            if math.isfinite(found):
                return found, None
        return _tail(
            _series(a).ewm_mean(alpha=alpha, adjust=adjust, min_samples=least, ignore_nulls=skip), count
        )

    return run


def _recursive_deviation(
    count: int, length: int, alpha: float, adjust: bool, bias: bool, least: int, skip: bool
) -> Operation:
    def run(a: Operand) -> Operand:
        found = _series(a).ewm_std(
            alpha=alpha, adjust=adjust, bias=bias, min_samples=least, ignore_nulls=skip
        )
        return _tail(found, count)

    return run


def _array(count: int, name: str, window: int) -> Operation:
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
        if q is None:
            chosen = s == s[-1]
        else:
            chosen = (s == s[-1]) & q if q[-1] else ~q
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


_FIXED: dict[str, Operation] = {
    "Plus": _of_two(operator.add),
    "Minus": _of_two(operator.sub),
    "Multiply": _of_two(operator.mul),
    "TrueDivide": _of_two(operator.truediv),
    "Share": _of_two(lambda a, b: a * (1.0 / b)),
    "FloorDivide": _of_two(operator.floordiv),
    "Modulus": _of_two(operator.mod),
    "Gt": _of_two(_greater),
    "Lt": _of_two(lambda a, b: _greater(b, a)),
    "GtEq": _of_two(_at_least),
    "LtEq": _of_two(lambda a, b: _at_least(b, a)),
    "Eq": _of_two(_equal),
    "NotEqValidity": _differs,
    "And": _and,
    "Or": _or,
    "Not": _of_one(operator.invert),
    "Ternary": _choose,
    "Abs": _of_one(operator.abs),
    "Negate": _of_one(operator.neg),
    "Sign": _of_one(np.sign),
    "Sqrt": _of_one(np.sqrt),
    "Square": _of_one(lambda x: x * x),
    "Log": _each(_log),
    "Sin": _each(_wave(math.sin)),
    "Cos": _each(_wave(math.cos)),
    "Tanh": _each(math.tanh),
    "MaxHorizontal": _extreme(np.fmax),
    "MinHorizontal": _extreme(np.fmin),
    "IsNotNull": _known(flag=True),
    "IsNull": _known(flag=False),
    "same": _of_one(lambda x: x),
    "search": _search,
}
_MADE: dict[str, Callable[..., Operation]] = {
    "Clip": _clip,
    "FillNull": _fill,
    "Cast": _cast,
    "part": _part,
    "wall": _wall,
}
_WINDOWED: dict[str, Callable[..., Operation]] = {
    "rolling": _rolling,
    "array": _array,
    "forward": _forward,
    "over": _over,
}
_RECURSIVE = {"EwmMean": _recursive_mean, "EwmStd": _recursive_deviation}


def operation(node: Node, count: int, length: int) -> Operation:
    """The function of a node for `count` values, from `length` values of what it looks back over."""
    params: Any = node.params
    if node.op == "literal":
        constant = _literal(node.kind, params[0])
        return lambda: constant
    if node.op in _FIXED:
        return _FIXED[node.op]
    if node.op in _MADE:
        return _MADE[node.op](*params)
    if node.op in _RECURSIVE:
        return _RECURSIVE[node.op](count, length, *params)
    return partial(_WINDOWED[node.op], count)(*params)
