"""One trial: purged cross-validation of one set of parameters, in steps that a scheduler can cut.

The score is the mean over the folds seen so far of RMSE / RMSE of the zero forecast on the same rows, so
that trials at equal progress can be compared whatever the folds' volatility. For the direction task the
RMSE is that of P(up) against 0/1 and the zero forecast is 0.5.

Each fold's validation rows also decide when its boosting stops; the cross-validated RMSE is therefore
slightly optimistic. It ranks candidates; skill is measured on later rows, which tuning never sees.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import TuningError
from marketray.features.fitted import Extension, FittedColumn, FittedFeature, fit_columns
from marketray.models.base import EarlyStopping, Family, Prepared, Task
from marketray.models.contribution import ALL, Ranking, rank_columns, split_group
from marketray.models.extended import Layout

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = ["RUNGS", "Budget", "FoldCache", "Progress", "run_trial", "zero_rmse"]

RUNGS: tuple[tuple[int, float], ...] = ((11, 1.0), (33, 3.0))
"""(progress, learning rate × rounds) of the rungs inside the first fold.

Boosting with rate η has after n rounds taken about the same way as any other with equal η·n, so slow
learners are compared fairly. The end of fold k is progress 100·k.
"""

_CACHED_KEYS = 4

Fold = tuple[slice, slice]


@dataclass(frozen=True)
class Budget:
    """Early stopping and threads, the same for all trials of a tuning."""

    task: Task = "regression"
    threads: int = 1
    seed: int = 0
    patience: int = 10
    round_step: int = 10


@dataclass(frozen=True)
class Progress:
    """What a trial reports.

    Attributes
    ----------
    progress:
        11 and 33 inside the first fold (boosted families), 100·k at the end of fold k.
    score:
        Mean RMSE / zero RMSE over the folds so far, the current one included.
    fold_rmse, fold_zero_rmse:
        Of the folds that are finished, fractions.
    fold_rounds:
        Best boosting rounds of the folds that are finished.
    predictions:
        Out-of-fold predictions of all folds in order, float32; only with the last report.
    """

    progress: int
    score: float
    fold_rmse: tuple[float, ...] = ()
    fold_zero_rmse: tuple[float, ...] = ()
    fold_rounds: tuple[int, ...] = ()
    predictions: npt.NDArray[np.float32] | None = None


@dataclass
class FoldCache:
    """Binned rows of the folds, built once per process and kept for the latest few kinds of binning.

    Fitted features are fitted anew in every fold, on the rows it fits on alone. So are the rankings, one for
    each fold, by which a trial's ``feature_group`` is that fold's own set of columns.
    """

    family: Family
    block: Block
    folds: Sequence[Fold]
    budget: Budget
    fitted: Sequence[FittedFeature] = ()
    rankings: Sequence[Ranking] = ()
    _kept: OrderedDict[Hashable, dict[int, Prepared]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.layout = Layout.of(self.family, self.block.columns, self.fitted)
        self.y = self.block.up if self.budget.task == "direction" else self.block.y

    def prepared(self, k: int, params: Mapping[str, Any]) -> Prepared:
        """Fold k, ready for a fit with `params`.

        Raises
        ------
        TuningError
            The parameters name a group of columns, and the folds are not ranked.
        """
        params, group, _ = split_group(params)
        key = (self.family.preparation_key(params), group)
        folds = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > _CACHED_KEYS:
            self._kept.popitem(last=False)
        if k not in folds:
            fit, score = self.folds[k]
            layout = self.layout_of(k, group)
            kept = {feature.name for feature in layout.fitted}
            made = [column for column in self.fitted_columns(k) if column.name in kept]
            rows = Extension(self.block.columns, layout.raw, made)
            folds[k] = self.family.prepare(
                params,
                layout.learned,
                rows(self.block.values[fit]),
                self.y[fit],
                task=self.budget.task,
                threads=self.budget.threads,
                evaluation=(rows(self.block.values[score]), self.y[score]),
            )
        return folds[k]

    def layout_of(self, k: int, group: str) -> Layout:
        """The columns of a group in fold k; see `prepared`."""
        if group == ALL:
            return self.layout
        if not self.rankings:
            msg = f"feature_group={group!r}, but the folds are not ranked; required: a ranking of each fold"
            raise TuningError(msg, hint="rank the folds with the best parameters of stage 1 first")
        return self.layout.only(self.rankings[k].columns(group))

    def ranking(self, k: int, params: Mapping[str, Any], rounds: int) -> Ranking:
        """The columns by their contribution in a model fitted on fold k's training rows alone."""
        fit, _ = self.folds[k]
        rows = Extension(self.block.columns, self.layout.raw, self.fitted_columns(k))
        return rank_columns(
            self.family,
            params,
            rounds,
            self.layout.learned,
            rows(self.block.values[fit]),
            self.y[fit],
            task=self.budget.task,
            threads=self.budget.threads,
            seed=self.budget.seed,
        )

    def fitted_columns(self, k: int) -> tuple[FittedColumn, ...]:
        """The fitted features with their parameters of fold k."""
        fit, _ = self.folds[k]
        return fit_columns(self.layout.fitted, self.block.columns, self.block.values[fit])


def zero_rmse(y: npt.NDArray[np.float64], task: Task) -> float:
    """RMSE of the forecast that knows nothing: return 0, or P(up) = 0.5."""
    return float(np.sqrt(np.mean((y - (0.5 if task == "direction" else 0.0)) ** 2)))


def run_trial(cache: FoldCache, params: Mapping[str, Any]) -> Iterator[Progress]:
    """Fit and score fold after fold, with a report at every rung and at the end of every fold.

    Parameters
    ----------
    cache:
        Family, rows, folds and budget.
    params:
        The family's parameters, and ``feature_group``.
    """
    own, _, _ = split_group(params)
    rmse: list[float] = []
    zero: list[float] = []
    rounds: list[int] = []
    parts: list[npt.NDArray[np.float32]] = []
    for k in range(len(cache.folds)):
        y = cache.y[cache.folds[k][1]]
        zero.append(zero_rmse(y, cache.budget.task))
        training = cache.family.start(
            cache.prepared(k, params), own, threads=cache.budget.threads, seed=cache.budget.seed
        )
        stopping = EarlyStopping(training, y, cache.budget.patience, cache.budget.round_step)
        rungs = list(RUNGS) if k == 0 and cache.family.boosted else []
        rate = float(params.get("learning_rate", 1.0))
        while not stopping.finished:
            stopping.advance()
            while rungs and rate * training.rounds >= rungs[0][1]:
                yield Progress(rungs.pop(0)[0], stopping.best_score / zero[0])
        for progress, _ in rungs:
            yield Progress(progress, stopping.best_score / zero[0])
        rmse.append(stopping.best_score)
        rounds.append(stopping.best_rounds)
        parts.append(stopping.best_predictions.astype(np.float32))
        yield Progress(
            100 * (k + 1),
            float(np.mean(np.divide(rmse, zero))),
            tuple(rmse),
            tuple(zero),
            tuple(rounds),
            np.concatenate(parts) if k + 1 == len(cache.folds) else None,
        )
