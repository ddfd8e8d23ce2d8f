"""Columns ranked by what they contribute to a model's predictions, and groups of the best of them.

A column's contribution to one prediction is its Shapley value, which boosted trees give of themselves
(Lundberg et al. 2020, Nature Machine Intelligence 2), and for a linear model its term. A column's share is
its mean |contribution| over a sample of rows, divided by the sum over all columns.

Groups are cumulative: ``5–10%`` are the best columns whose shares add up to at most 10 %, those of ``0–5%``
among them. ``knee`` ends where the cumulative share lies highest above the straight line from no column to
all of them (Satopää et al. 2011), which is the last column with more than an equal share. ``all`` are all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from marketray.errors import ModelError
from marketray.models.columns import shares as shares_of

if TYPE_CHECKING:
    from marketray.models.base import Family, FittedModel, Float32Array, Float64Array, Params, Task

__all__ = [
    "ALL",
    "FEATURE_GROUP",
    "FEWEST",
    "GroupChoice",
    "Ranking",
    "group_names",
    "rank_columns",
    "ranking_of",
    "split_group",
]

FEATURE_GROUP = "feature_group"
"""The parameter that names a group."""

ALL = "all"
FEWEST = 3
"""Columns of the smallest group."""

_EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
_KNEE = "knee"
_NAMES = {f"{100 * low:.0f}–{100 * high:.0f}%": high for low, high in pairwise(_EDGES)}
_ROUNDING = 1e-9  # of a sum of shares
_MOST_ROWS, _FEWEST_ROWS, _ROWS_TIMES_ROUNDS = 2_000, 200, 60_000


@dataclass(frozen=True)
class Ranking:
    """Shares of contribution of one model's columns; they sum to 1, or are all 0 if it learned nothing."""

    shares: Mapping[str, float]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Columns by falling share, equals by name."""
        return tuple(sorted(self.shares, key=lambda column: (-self.shares[column], column)))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Columns of every group; all of them where nothing was learned, since nothing tells them apart."""
        count = len(self.order)
        cumulative = np.cumsum([self.shares[column] for column in self.order])
        if not count or cumulative[-1] <= 0:
            return dict.fromkeys((*_NAMES, _KNEE, ALL), count)
        sizes = {
            name: int(np.searchsorted(cumulative, edge + _ROUNDING, side="right"))
            for name, edge in _NAMES.items()
        }
        above_the_line = cumulative - np.arange(1, count + 1) / count
        return {**sizes, _KNEE: int(np.argmax(above_the_line)) + 1, ALL: count}

    def columns(self, group: str) -> frozenset[str]:
        """The columns of a group, the best `FEWEST` at least.

        Raises
        ------
        ModelError
            There is no such group.
        """
        if group not in self.sizes:
            msg = f"{FEATURE_GROUP}={group!r}; required: one of {list(self.sizes)}"
            raise ModelError(msg)
        return frozenset(self.order[: max(self.sizes[group], FEWEST)])


@dataclass(frozen=True)
class GroupChoice:
    """A group, and the model whose contributions decide what is in it.

    Attributes
    ----------
    name:
        The group.
    params, rounds:
        What the ranking model is fitted with, on all columns of the rows at hand.
    """

    name: str
    params: dict[str, Any]
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """The value of `FEATURE_GROUP` for a fit that ranks its own columns; `split_group` reads it."""
        return asdict(self)


def split_group(params: Params) -> tuple[dict[str, Any], str, GroupChoice | None]:
    """The family's own parameters, the name of the group and, where it is given, how to rank."""
    own = {name: value for name, value in params.items() if name != FEATURE_GROUP}
    given = params.get(FEATURE_GROUP, ALL)
    if isinstance(given, Mapping):
        choice = GroupChoice(**given)
        return own, choice.name, choice
    return own, given, None


def group_names(rankings: Sequence[Ranking]) -> tuple[str, ...]:
    """The groups worth a choice over these folds, ``all`` last.

    Left out are those with fewer than `FEWEST` columns in a fold, and those that are in every fold the same
    as a smaller one or as ``all``.
    """
    seen = {tuple(ranking.columns(ALL) for ranking in rankings)}
    names = []
    for name in (*_NAMES, _KNEE):
        columns = tuple(ranking.columns(name) for ranking in rankings)
        if min(ranking.sizes[name] for ranking in rankings) >= FEWEST and columns not in seen:
            seen.add(columns)
            names.append(name)
    return (*names, ALL)


def rank_columns(
    family: Family,
    params: Params,
    rounds: int,
    columns: tuple[str, ...],
    X: Float32Array,
    y: Float64Array,
    *,
    task: Task = "regression",
    threads: int = 1,
    seed: int = 0,
) -> Ranking:
    """Fit on these rows alone and rank what the fitted model has learned of them: `ranking_of`.

    Parameters
    ----------
    params, rounds:
        As for `Family.with_rounds`.
    columns, X, y:
        As for `Family.fit`.
    seed:
        Of the fit and of the sample.

    Raises
    ------
    ModelError
        The family refuses a parameter or a row.
    """
    fixed = family.with_rounds(params, rounds)
    model = family.fit(fixed, columns, X, y, task=task, threads=threads, seed=seed)
    return ranking_of(model, X, seed)


def ranking_of(model: FittedModel, X: Float32Array, seed: int = 0) -> Ranking:
    """Share out what the columns contribute to a model's predictions of a sample of the rows X (n, p).

    The sample has 2,000 rows for 30 boosting rounds, in inverse proportion fewer for more, never under 200:
    a tree's Shapley values of some hundred rows cost as much as its fit to all.
    """
    size = min(len(X), _MOST_ROWS, max(_FEWEST_ROWS, _ROWS_TIMES_ROUNDS // model.rounds))
    sample = np.sort(np.random.default_rng(seed).choice(len(X), size, replace=False))
    weight = np.abs(model.contributions(X[sample])[:, :-1]).mean(axis=0)
    return Ranking(shares_of(model.learned, weight.tolist()))
