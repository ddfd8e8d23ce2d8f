"""A row by need: how many of its last values each node must give, and the steps that give them.

One value of every feature is wanted. A node that is shifted is wanted further back, one under a rolling
window at as many bars as the window holds, and one under a recursive mean, or under what the session has
done so far, as far back as the features that use it declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.features.numeric import FALSE, Operand, Operation
from marketray.features.trailing import operation

if TYPE_CHECKING:
    from marketray.features.tree import Graph

__all__ = ["Demand"]

_FAR = {"EwmMean", "EwmStd", "forward", "over"}
"""What looks back as far as it is let."""

_WINDOWED = {"rolling", "array"}
"""What looks back over a window; its length is the second parameter."""


@dataclass
class _Span:
    """Bars at which a node is wanted, counted back from the last: ``first <= ago < end``."""

    first: int
    end: int

    def widen(self, first: int, end: int) -> None:
        self.first, self.end = min(self.first, first), max(self.end, end)


@dataclass
class _Steps:
    """The program: the places that its steps read and write hold operands."""

    count: int = 0
    steps: list[tuple[int, Operation, tuple[int, ...]]] = field(default_factory=list)
    views: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)

    def place(self) -> int:
        self.count += 1
        return self.count - 1

    def add(self, function: Operation, arguments: tuple[int, ...]) -> int:
        out = self.place()
        self.steps.append((out, function, arguments))
        return out


class Demand:
    """The program of some columns.

    Parameters
    ----------
    graph:
        Their nodes.
    wanted:
        Places of the columns in the graph, and how many bars each looks back over.
    """

    def __init__(self, graph: Graph, wanted: Sequence[tuple[int, int]]) -> None:
        self._nodes = graph.nodes
        self._spans: dict[int, _Span] = {}
        self._reach: dict[int, int] = {}
        for place, lookback in wanted:
            self._want(place, 0, 1, lookback)
        for place in range(len(self._nodes) - 1, -1, -1):
            if place in self._spans:
                for operand, (first, end) in zip(self._nodes[place].inputs, self._needs(place), strict=True):
                    self._want(operand, first, end, self._reach[place])
        self._program = _Steps()
        self._values: dict[int, int] = {}
        self._columns: dict[str, tuple[int, int]] = {}
        for place in sorted(self._spans):
            self._emit(place)
        self._last = [self._view(place, 0, 1) for place, _ in wanted]

    def _want(self, place: int, first: int, end: int, reach: int) -> None:
        first = 0 if self._nodes[place].op == "column" else first
        self._reach[place] = max(reach, end, self._reach.get(place, 0))
        self._spans.setdefault(place, _Span(first, end)).widen(first, end)

    def _needs(self, place: int) -> list[tuple[int, int]]:
        """Where the operands of a node are wanted."""
        node, span = self._nodes[place], self._spans[place]
        params: Any = node.params
        if node.op == "shift":
            return [(span.first + params[0], span.end + params[0])]
        if node.op == "shift to edge":
            start = span.first + params[0]
            return [(start, max(min(span.end + params[0], self._reach[place]), start + 1))]
        if node.op in _WINDOWED:
            return [(span.first, span.end + params[1] - 1)]
        far = (span.first, max(self._reach[place], span.end))
        if node.op == "search":
            return [(0, far[1]), (span.first, span.end)]
        return [far if node.op in _FAR else (span.first, span.end)] * len(node.inputs)

    def _emit(self, place: int) -> None:
        node, span = self._nodes[place], self._spans[place]
        if node.op == "column":
            self._values[place] = self._program.place()
            self._columns[str(node.params[0])] = self._values[place], span.end
            return
        needs = self._needs(place)
        if node.op == "shift":
            (first, end), operand = needs[0], node.inputs[0]
            self._values[place] = self._view(operand, first, end)
            return
        if node.op == "shift to edge":
            view = self._view(node.inputs[0], *needs[0], whole=True)
            lacking = span.end + int(str(node.params[0])) - needs[0][1]
            function = _after_nulls(lacking, scalar=span.end - span.first == 1)
            self._values[place] = self._program.add(function, (view,))
            return
        whole = node.op in _FAR or node.op in _WINDOWED
        arguments = tuple(
            self._view(operand, *need, whole=whole or (node.op == "search" and i == 0))
            for i, (operand, need) in enumerate(zip(node.inputs, needs, strict=True))
        )
        length = needs[0][1] - needs[0][0] if needs else 0
        function = operation(node, span.end - span.first, length)
        self._values[place] = self._program.add(function, arguments)

    def _view(self, place: int, first: int, end: int, *, whole: bool = False) -> int:
        """Place of the values at ``first <= ago < end``; a single one is a scalar, unless `whole`."""
        node, span = self._nodes[place], self._spans[place]
        column = node.op == "column"
        if node.constant:
            return self._values[place]
        scalar = end - first == 1 and not whole
        if not column and (first, end) == (span.first, span.end) and (scalar or end - first > 1):
            return self._values[place]
        key = (place, first, end, scalar)
        if key not in self._program.views:
            single = span.end - span.first == 1 and not column
            function = _as_array if single else _slice(span.end - end, span.end - first, scalar)
            self._program.views[key] = self._program.add(function, (self._values[place],))
        return self._program.views[key]

    def last(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The columns at the last bar, in the order in which they were wanted; NaN where they are null."""
        places: list[Any] = [None] * self._program.count
        for name, (place, length) in self._columns.items():
            places[place] = _read(frame[name], length)
        with np.errstate(all="ignore"):
            for out, function, arguments in self._program.steps:
                if len(arguments) == 1:
                    places[out] = function(places[arguments[0]])
                else:
                    places[out] = function(*[places[i] for i in arguments])
        found = [places[i] for i in self._last]
        return np.array([np.nan if p is not None and not p else x for x, p in found], dtype=np.float64)


def _as_array(a: Operand) -> Operand:
    return np.array([a[0]]), None if a[1] is None else np.array([a[1]])


def _slice(start: int, end: int, scalar: bool) -> Operation:
    def one(a: Operand) -> Operand:
        return a[0][start], None if a[1] is None or a[1][start] else FALSE

    def some(a: Operand) -> Operand:
        if a[1] is None:
            return a[0][start:end], None
        known = a[1][start:end]
        return a[0][start:end], None if known.all() else known

    return one if scalar else some


def _after_nulls(count: int, *, scalar: bool) -> Operation:
    def run(a: Operand) -> Operand:
        x, p = _padded(a, count)
        return (x[0], None if p is None else p[0]) if scalar else (x, p)

    return run


def _padded(a: Operand, count: int, value: int = 0, *, known: bool = False) -> Operand:
    """The operand with `count` nulls before it, or with a value that is known."""
    if not count:
        return a
    x, p = a
    after = np.ones(len(x), dtype=bool) if p is None else p
    before = np.full(count, known)
    return np.concatenate([np.full(count, value, x.dtype), x]), np.concatenate([before, after])


def _read(column: pl.Series, length: int) -> Operand:
    """The last values of a column; before the first bar all are null, and in no session of the bars."""
    column = column.tail(length)
    known = column.is_not_null().to_numpy() if column.null_count() else None
    values = column.to_numpy()
    if values.dtype.kind == "M":
        values = values.view(np.int64)  # microseconds
    short = length - len(values)
    if column.name == "_session":
        return _padded((values, known), short, -1, known=True)
    return _padded((values, known), short)
