"""What a feature is: the one definition that batch, serving and the documentation read."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

__all__ = ["KERNEL_COLUMNS", "NEWS", "Feature"]

KERNEL_COLUMNS = ("_row", "_decision_at", "_session", "_open_at", "_close_at")
"""Columns that the kernel adds to the bars before any expression is evaluated: the row's position, the
decision time, and the session that the bar belongs to (position, open and close; null outside sessions)."""


NEWS = "news"
"""Input of features that need scored articles beside the bars."""


_ABSENT = "null where a bar lacks its inputs"


@dataclass(frozen=True)
class Feature:
    """One column of the feature table, known at the bar's end.

    Attributes
    ----------
    name, group:
        Unique name, and the group that settings switch.
    lookback:
        Bars the value depends on, the current one included. The value is null until so many bars have
        been seen. For recursive means it is the length after which the start has no weight left.
    expression:
        Polars expression over bars, kernel columns, shared columns and other features. It may look
        back (`shift`), never ahead. Null, NaN and infinite results are stored as null.
    formula, source, unit:
        For people: the definition in words of the trade, where it comes from, and its unit ("fraction"
        for returns and other shares, "minutes", "index 0-100", …).
    inputs:
        Optional bar columns it needs (`marketray.bars.OPTIONAL`), and `NEWS` where it needs scored articles;
        without them the feature is dropped.
    exact:
        Whether every cut of the data gives the same bits (lags, minima, maxima, single-bar values), as
        opposed to equality within rounding.
    null_policy:
        What stands where the formula has no value (0 / 0, no trades), beside what the formula's text and
        `inputs` say of it; empty where it always has one.
    """

    name: str
    group: str
    lookback: int
    expression: pl.Expr = field(compare=False, repr=False)
    formula: str
    source: str
    unit: str = "fraction"
    inputs: tuple[str, ...] = ()
    exact: bool = False
    null_policy: str = ""

    @property
    def words(self) -> tuple[str, str]:
        """The formula, and what stands where it has no value: the formula's own clauses, the declared
        policy, and null for a missing one of `inputs`, unless the policy says what stands where something
        is null. The second is empty where every bar after the lookback has a value.
        """
        first, *clauses = self.formula.split("; ")
        stated = [c for c in clauses if " where " in c or c.startswith("null ")]
        formula = "; ".join([first, *(c for c in clauses if c not in stated)])
        absent = [_ABSENT] if set(self.inputs) - {NEWS} and " is null" not in self.null_policy else []
        return formula, "; ".join([*stated, *filter(None, [self.null_policy]), *absent])
