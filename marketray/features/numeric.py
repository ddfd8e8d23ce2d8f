"""What the nodes of `marketray.features.tree` compute, on the last values of their operands.

An operand is a pair: its values, and which of them are not null. The values are a NumPy scalar where one is
wanted, else an array, oldest first; the second part is None where none is null, else a bool or an array of
them. Null, NaN and infinity are told apart as Polars does: NaN equals itself and is above every number.
"""

from __future__ import annotations

import math
import operator
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np

from marketray.features.tree import Node

__all__ = ["FALSE", "Operand", "Operation", "pointwise"]

Operand: TypeAlias = tuple[Any, Any]
Operation: TypeAlias = Callable[..., Operand]

FALSE = np.False_
_EPOCH = datetime(1970, 1, 1)


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


def _logarithm(a: Operand) -> Operand:
    x, p = a
    if isinstance(x, np.ndarray) and x.min() > 0:
        return np.array(list(map(math.log, x.tolist()))), p
    return _any_logarithm(a)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _wave(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: function(x) if math.isfinite(x) else math.nan


def _greater(a: Any, b: Any) -> Any:
    return ~(a <= b) & (b == b)  # noqa: PLR0124  (NaN alone is unequal to itself)


def _at_least(a: Any, b: Any) -> Any:
    return (a >= b) | (a != a)  # noqa: PLR0124


def _equal(a: Any, b: Any) -> Any:
    return (a == b) | ((a != a) & (b != b))  # noqa: PLR0124


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


def _by_clock(function: Callable[[datetime], int]) -> Operation:
    """A whole number of a time without its zone, from microseconds since the epoch."""

    def number(us: int) -> int:
        return function(_EPOCH + timedelta(microseconds=us))

    def run(a: Operand) -> Operand:
        x, p = a
        if isinstance(x, np.ndarray):
            return np.array([number(us) for us in x.tolist()]), p
        return np.int64(number(int(x))), p

    return run


def _part(name: str) -> Operation:
    """A part of a UTC time, as Polars' `dt` gives it; weekdays count from Monday, 1."""
    parts: dict[str, Callable[[datetime], int]] = {
        "Hour": lambda at: at.hour,
        "Minute": lambda at: at.minute,
        "WeekDay": datetime.isoweekday,
        "Day": lambda at: at.day,
        "Month": lambda at: at.month,
        "Quarter": lambda at: (at.month + 2) // 3,
        "DaysInMonth": lambda at: monthrange(at.year, at.month)[1],
    }
    return _by_clock(parts[name])


def _wall(zone: str) -> Operation:
    """Microseconds since the epoch on the zone's wall clock."""
    place = ZoneInfo(zone)

    def local(at: datetime) -> int:
        wall = at.replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None)
        return (wall - _EPOCH) // timedelta(microseconds=1)

    return _by_clock(local)


_any_logarithm = _each(_log)

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
    "Log": _logarithm,
    "Sin": _each(_wave(math.sin)),
    "Cos": _each(_wave(math.cos)),
    "Tanh": _each(math.tanh),
    "MaxHorizontal": _extreme(np.fmax),
    "MinHorizontal": _extreme(np.fmin),
    "IsNotNull": _known(flag=True),
    "IsNull": _known(flag=False),
    "same": _of_one(lambda x: x),
}
_MADE: dict[str, Callable[..., Operation]] = {
    "Clip": _clip,
    "FillNull": _fill,
    "Cast": _cast,
    "part": _part,
    "wall": _wall,
}


def pointwise(node: Node) -> Operation | None:
    """The function of a node that needs no other rows than those it is wanted at; None for other nodes."""
    params: Any = node.params
    if node.op == "literal":
        constant = _literal(node.kind, params[0])
        return lambda: constant
    return _MADE[node.op](*params) if node.op in _MADE else _FIXED.get(node.op)
