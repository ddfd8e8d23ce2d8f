"""Feature expressions as one graph: equal parts of all features are one node.

Polars writes an expression as JSON. What is read here is a closed set of operations on Float64, Int64,
Boolean and time columns whose meaning is fixed; anything else is `Unknown`, and whoever asked evaluates the
expression itself.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from marketray.features.windows import array_function

__all__ = ["Graph", "Node", "Unknown"]

_TIMES = ("time", "_decision_at", "_open_at", "_close_at")
_COUNTS = ("_row", "_session")

_ARITHMETIC = {"Plus", "Minus", "Multiply", "TrueDivide", "FloorDivide", "Modulus"}
_COMPARISONS = {"Gt", "GtEq", "Lt", "LtEq", "Eq", "NotEqValidity"}
_NUMBERS = {"float", "int", "small"}
_PARTS = {"Hour", "Minute", "WeekDay", "Day", "Month", "Quarter", "DaysInMonth"}


class Unknown(Exception):  # noqa: N818  (no failure: the expression is evaluated by Polars)
    """The graph has no node for this part of an expression."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes
    ----------
    op:
        Its name.
    inputs:
        Places of its operands in the graph, all before its own.
    params:
        What else it needs, in the order its function takes it.
    kind:
        Type of its values: "float", "int" (Int64), "small" (a part of a date), "index" (UInt32), "bool",
        "time" or "time ZONE" (microseconds of UTC since the epoch), "span" (microseconds), "null".
    constant:
        It is the same in every row.
    """

    op: str
    inputs: tuple[int, ...]
    params: tuple[Hashable, ...]
    kind: str
    constant: bool = False


class Graph:
    """The nodes behind some columns, operands first.

    Parameters
    ----------
    definitions:
        Expression of every column that is not in the bars.
    """

    def __init__(self, definitions: Mapping[str, pl.Expr]) -> None:
        self.nodes: list[Node] = []
        self._definitions = definitions
        self._places: dict[Node, int] = {}
        self._columns: dict[str, int | Unknown] = {}
        self._filling = False  # a forward fill is being read

    def column(self, name: str) -> int:
        """Place of the node that is the column `name`; raises `Unknown`."""
        if name not in self._columns:
            filling, self._filling = self._filling, False
            try:
                self._columns[name] = self._defined(name)
            except Unknown as unknown:
                self._columns[name] = unknown
            except (LookupError, TypeError, ValueError, AttributeError, pl.exceptions.ComputeError) as unread:
                self._columns[name] = Unknown(f"{name}: {unread}")  # not the JSON that is known
            finally:
                self._filling = filling
        place = self._columns[name]
        if isinstance(place, Unknown):
            raise place
        return place

    def _defined(self, name: str) -> int:
        if name not in self._definitions:
            kind = "time" if name in _TIMES else "int" if name in _COUNTS else "float"
            return self._add("column", (), (name,), kind)
        return self._read(json.loads(self._definitions[name].meta.serialize(format="json")))

    def _add(self, op: str, inputs: tuple[int, ...], params: tuple[Hashable, ...], kind: str) -> int:
        constant = op == "literal" or (bool(inputs) and all(self.nodes[i].constant for i in inputs))
        if constant and op not in {"literal", "Cast", "Share"} | _ARITHMETIC:
            raise Unknown(op)
        node = Node(op, inputs, params, kind, constant)
        if node not in self._places:
            self._places[node] = len(self.nodes)
            self.nodes.append(node)
        return self._places[node]

    def _read(self, tree: Any) -> int:
        if not isinstance(tree, dict) or len(tree) != 1:
            raise Unknown(str(tree))
        ((name, body),) = tree.items()
        reader = {
            "Column": self.column,
            "Literal": self._literal,
            "Alias": lambda parts: self._read(parts[0]),
            "BinaryExpr": self._binary,
            "Ternary": self._ternary,
            "Cast": self._cast,
            "Over": self._over,
            "Function": self._function,
            "AnonymousFunction": self._array_function,
        }.get(name)
        if reader is None:
            raise Unknown(name)
        return reader(body)

    def _require(self, met: bool, what: object) -> None:
        if not met:
            raise Unknown(str(what))

    def _literal(self, body: Any) -> int:
        shape = next(iter(body.values()))
        ((name, value),) = shape.items()
        kinds = {"Int": "int", "Int64": "int", "Float": "float", "Float64": "float", "Boolean": "bool"}
        if name == "Duration" and value[1] == "Microseconds":
            return self._add("literal", (), (value[0],), "span")
        if name == "Null":
            return self._add("literal", (), (None,), "null")
        self._require(name in kinds and isinstance(value, int | float) and str(value) != "-0.0", body)
        return self._add("literal", (), (value,), kinds[name])

    def _value(self, tree: Any) -> Any:
        """A literal's value; the place of a literal says what it is."""
        node = self.nodes[self._read(tree)]
        self._require(node.op == "literal" and node.kind in {"int", "float", "bool"}, tree)
        return node.params[0]

    def _binary(self, body: Any) -> int:
        op, left, right = body["op"], self._read(body["left"]), self._read(body["right"])
        kinds = self.nodes[left].kind, self.nodes[right].kind
        if op in _ARITHMETIC:
            kind = self._sum_kind(op, left, right)
            if op == "TrueDivide" and self.nodes[right].constant:
                op = "Share"  # Polars multiplies by the inverse
            return self._add(op, (left, right), (), kind)
        if op in {"And", "Or"}:
            self._require(kinds == ("bool", "bool"), body)
            return self._add(op, (left, right), (), "bool")
        self._require(op in _COMPARISONS and (set(kinds) <= _NUMBERS or kinds[0] == kinds[1]), op)
        return self._add(op, (left, right), (), "bool")

    def _sum_kind(self, op: str, left: int, right: int) -> str:
        kinds = self.nodes[left].kind, self.nodes[right].kind
        if op in {"Plus", "Minus", "Multiply"} and set(kinds) == {"float", "bool"}:
            return "float"
        if op in {"FloorDivide", "Modulus"}:
            divisor = self.nodes[right]
            number = divisor.params[0] if divisor.op == "literal" else None
            self._require(kinds == ("int", "int") and isinstance(number, int) and number > 0, op)
            return "int"
        if set(kinds) <= _NUMBERS:
            if op == "TrueDivide" or "float" in kinds:
                return "float"
            if kinds == ("small", "int") and self.nodes[right].op == "literal":
                number = self.nodes[right].params[0]
                self._require(op in {"Plus", "Minus"} and number in (0, 1), op)  # Int8 would run over
                return "small"
            self._require(kinds == ("int", "int"), kinds)
            return "int"
        times = {
            ("Minus", "time", "time"): "span",
            ("Minus", "time", "span"): "time",
            ("Plus", "time", "span"): "time",
            ("Minus", "span", "span"): "span",
            ("Plus", "span", "span"): "span",
        }
        self._require((op, *kinds) in times, kinds)
        return times[op, *kinds]

    def _ternary(self, body: Any) -> int:
        condition, chosen, other = (self._read(body[part]) for part in ("predicate", "truthy", "falsy"))
        kinds = {self.nodes[chosen].kind, self.nodes[other].kind} - {"null"}
        if kinds == {"float", "int"}:
            chosen, other = self._as_float(chosen), self._as_float(other)
            kinds = {"float"}
        self._require(self.nodes[condition].kind == "bool" and len(kinds) == 1, "Ternary")
        return self._add("Ternary", (condition, chosen, other), (), kinds.pop())

    def _as_float(self, place: int) -> int:
        return self._add("Cast", (place,), ("float",), "float") if self.nodes[place].kind == "int" else place

    def _cast(self, body: Any) -> int:
        place, target = (
            self._read(body["expr"]),
            {"Float64": "float", "Int64": "int"}[body["dtype"]["Literal"]],
        )
        sources = {"int", "small", "index", "bool"} | ({"float"} if target == "float" else set())
        self._require(self.nodes[place].kind in sources, "Cast")
        return self._add("Cast", (place,), (target,), target)

    def _over(self, body: Any) -> int:
        by_session = body["partition_by"] == [{"Column": "_session"}] and body["order_by"] is None
        self._require(by_session and body["mapping"] == "GroupsToRows", "Over")
        inner, session = body["function"], self.column("_session")
        if "Agg" in inner:
            self._require(list(inner["Agg"]) == ["First"], "Agg")
            place = self._read(inner["Agg"]["First"])
            return self._add("over", (place, session), ("First",), self.nodes[place].kind)
        self._require("Function" in inner, "Over")
        function = inner["Function"]["function"]
        self._require(isinstance(function, dict), function)
        ((name, options),) = function.items()
        if name == "Range":
            known = pl.int_range(1, pl.len() + 1).meta.serialize(format="json")
            self._require(inner == json.loads(known), "Range")
            return self._add("over", (session, session), ("Count",), "int")
        self._require(name in {"CumSum", "CumMax", "CumMin"} and options == {"reverse": False}, name)
        place = self._read(inner["Function"]["input"][0])
        self._require(self.nodes[place].kind == "float", name)
        return self._add("over", (place, session), (name,), "float")

    def _function(self, body: Any) -> int:
        function, trees = body["function"], body["input"]
        name, options = (function, None) if isinstance(function, str) else next(iter(function.items()))
        if name == "FillNullWithStrategy":
            return self._forward(options, trees[0])
        if name in {"Shift", "Diff"}:
            return self._shift(name, options, trees)
        if name == "SearchSorted":
            return self._search(options, trees)
        if name in {"FillNull", "Clip", "Log"} or (name, options) == ("Pow", "Generic"):
            return self._with_literals(name, options, trees)
        places = tuple(self._read(tree) for tree in trees if "Literal" not in tree or name != "TemporalExpr")
        kinds = {self.nodes[place].kind for place in places}
        if name == "TemporalExpr":
            return self._temporal(options, places[0])
        if name == "Boolean":
            return self._boolean(options, places)
        self._require(kinds == {"float"}, name)
        if name in {"RollingExpr", "EwmMean", "EwmStd"}:
            return self._windowed(name, options, places)
        op = options if name in {"Pow", "Trigonometry"} else name
        known = {"Abs", "Negate", "Sign", "Sqrt", "Sin", "Cos", "Tanh", "MaxHorizontal", "MinHorizontal"}
        self._require(op in known, op)
        return self._add(str(op), places, (), "float")

    def _shift(self, name: str, options: Any, trees: Any) -> int:
        place, steps = self._read(trees[0]), self._value(trees[1])
        self._require(isinstance(steps, int) and steps >= 0 and options in (None, "Ignore"), name)
        op = "shift to edge" if self._filling else "shift"
        earlier = self._add(op, (place,), (steps,), self.nodes[place].kind) if steps else place
        if name == "Shift":
            return earlier
        return self._add("Minus", (place, earlier), (), self._sum_kind("Minus", place, earlier))

    def _forward(self, options: Any, tree: Any) -> int:
        """What is filled forward may begin at the first bar of all, so there its lags are null."""
        self._require(options == {"Forward": None} and not self._filling, options)
        self._filling = True
        try:
            place = self._read(tree)
        finally:
            self._filling = False
        return self._add("forward", (place,), (), self.nodes[place].kind)

    def _search(self, options: Any, trees: Any) -> int:
        column, wanted = (self._read(tree) for tree in trees)
        sorted_times = self.nodes[column].params == ("time",) and self.nodes[wanted].kind == "time"
        self._require(sorted_times and options == {"side": "Right", "descending": False}, options)
        return self._add("search", (column, wanted), (), "index")

    def _with_literals(self, name: str, options: Any, trees: Any) -> int:
        place, values = self._read(trees[0]), [self._value(tree) for tree in trees[1:]]
        kind = self.nodes[place].kind
        if name == "FillNull":
            self._require(kind == "bool" and isinstance(values[0], bool), name)
            return self._add(name, (place,), (values[0],), kind)
        if name == "Clip":
            low = values.pop(0) if options["has_min"] else None
            high = values.pop(0) if options["has_max"] else None
            whole = all(bound is None or isinstance(bound, int) for bound in (low, high))
            self._require(kind == "float" or (kind == "int" and whole), name)
            return self._add(name, (place,), (low, high), kind)
        if name == "Log":
            self._require(kind == "float" and values == [2.718281828459045], name)
            return self._add(name, (place,), (), kind)
        self._require(kind == "float" and values == [2], name)
        return self._add("Square", (place,), (), kind)

    def _temporal(self, options: Any, place: int) -> int:
        kind = self.nodes[place].kind
        whole = {"span": {"TotalMicroseconds": {"fractional": False}}, "time": {"TimeStamp": "Microseconds"}}
        if options == whole.get(kind):
            return self._add("same", (place,), (), "int")
        if isinstance(options, str) and options in _PARTS and kind == "time":
            return self._add("part", (place,), (options,), "small")
        if isinstance(options, dict) and "ConvertTimeZone" in options and kind == "time":
            return self._add("same", (place,), (), f"time {options['ConvertTimeZone']['inner']}")
        self._require(options == {"ReplaceTimeZone": [None, "Raise"]} and kind.startswith("time "), options)
        return self._add("wall", (place,), (kind.removeprefix("time "),), "time")

    def _boolean(self, options: Any, places: tuple[int, ...]) -> int:
        kinds = {self.nodes[place].kind for place in places}
        if options in ("IsNotNull", "IsNull"):
            return self._add(options, places, (), "bool")
        if options == "Not":
            self._require(kinds == {"bool"}, options)
            return self._add("Not", places, (), "bool")
        closed = options.get("IsBetween", {}).get("closed") if isinstance(options, dict) else None
        self._require(closed is not None and kinds <= _NUMBERS, options)
        value, low, high = places
        over = "GtEq" if closed in {"Both", "Left"} else "Gt"
        under = "LtEq" if closed in {"Both", "Right"} else "Lt"
        above = self._add(over, (value, low), (), "bool")
        return self._add("And", (above, self._add(under, (value, high), (), "bool")), (), "bool")

    def _windowed(self, name: str, options: Any, places: tuple[int, ...]) -> int:
        if name != "RollingExpr":
            found = options["options"]
            keys = ("alpha", "adjust", "bias", "min_periods", "ignore_nulls")
            return self._add(name, places, tuple(found[key] for key in keys), "float")
        function, found = options["function"], options["options"]
        window, params = found["window_size"], found["fn_params"] or {}
        plain = found["min_periods"] == window and found["weights"] is None and not found["center"]
        self._require(plain and function in {"Mean", "Sum", "Max", "Min", "Var", "Std", "Quantile"}, function)
        extra: tuple[Hashable, ...] = (params["Var"]["ddof"],) if function in {"Var", "Std"} else ()
        if function == "Quantile":
            self._require(params["Quantile"]["method"] == "Linear", params)
            extra = (params["Quantile"]["prob"],)
        return self._add("rolling", places, (function, window, *extra), "float")

    def _array_function(self, body: Any) -> int:
        """A function of `marketray.features.windows`, known by the name that its input is given."""
        (tree,) = body["input"]
        name, place = tree["Alias"][1], self._read(tree)
        found = array_function(name)
        if found is None or self.nodes[place].kind != "float":
            raise Unknown(name)
        return self._add("array", (place,), (name, found[1]), "float")
