"""One trial: purged cross-validation of one set of parameters, in steps that a scheduler can cut.

The score is the mean over the folds seen so far of RMSE / RMSE of the zero forecast on the same rows, so
that trials at equal progress can be compared whatever the folds' volatility. For the direction task the
RMSE is that of P(up) against 0/1 and the zero forecast is 0.5.

Each fold's validation rows also decide when its boosting stops; the cross-validated RMSE is therefore
slightly optimistic. It ranks candidates; skill is measured on later rows, which tuning never sees.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import TuningError
from marketray.features.fitted import Extension, FittedColumn, FittedFeature, fit_columns
from marketray.models.base import Device, Family, Task
from marketray.models.contribution import ALL, Ranking, rank_columns, ranking_of, split_group
from marketray.models.extended import Layout
from marketray.models.training import EarlyStopping, Prepared
from marketray.tuning.contributions import Contributions

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = [
    "SAMPLED",
    "Budget",
    "FoldCache",
    "Progress",
    "mean_rounds",
    "run_trial",
    "rung_name",
    "zero_rmse",
]

SAMPLED = 10
"""Progress of the rung before the folds; after k folds it is 100·k."""

_STRIDES = (3, 8)  # a denser sample costs too much, a thinner one is not needed
_SAMPLE_ROWS = 10_000  # on fewer, slow and simple models look better than they are
_CACHED_KEYS = 4

Fold = tuple[slice, slice]


@dataclass(frozen=True)
class Budget:
    """Early stopping, threads and device, the same for all trials of a tuning."""

    task: Task = "regression"
    threads: int = 1
    seed: int = 0
    patience: int = 10
    round_step: int = 10
    device: Device = "cpu"


@dataclass(frozen=True)
class Progress:
    """What a trial reports.

    Attributes
    ----------
    progress:
        `SAMPLED` after the fit on a sample of the rows (boosted families), 100·k after k folds.
    score:
        RMSE / zero RMSE of the last fold at `SAMPLED`, then the mean over the folds so far.
    fold_rmse, fold_zero_rmse:
        Of the folds that are finished, in time order, fractions.
    fold_rounds:
        Best boosting rounds of the folds that are finished, in time order.
    predictions:
        Out-of-fold predictions of all folds in order, float32; only with the last report.
    contributions:
        What each column contributes in each fold; only with the last report, where it was asked for.
    """

    progress: int
    score: float
    fold_rmse: tuple[float, ...] = ()
    fold_zero_rmse: tuple[float, ...] = ()
    fold_rounds: tuple[int, ...] = ()
    predictions: npt.NDArray[np.float32] | None = None
    contributions: Contributions | None = None


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
    _kept: OrderedDict[Hashable, dict[tuple[int, int], Prepared]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.layout = Layout.of(self.family, self.block.columns, self.fitted)
        self.y = self.block.up if self.budget.task == "direction" else self.block.y

    @property
    def sample_stride(self) -> int:
        """Distance of the rows of the last fold that are sampled for the rung before the folds.

        Neighbouring minutes share most of their label and of their features, so that every eighth row tells
        nearly as much as all of them. 1 where there are too few rows, or the family has no rounds to save.
        """
        fit, _ = self.folds[-1]
        stride = min(len(self.y[fit]) // _SAMPLE_ROWS, _STRIDES[1])
        return stride if self.family.boosted and stride >= _STRIDES[0] else 1

    def prepared(self, k: int, params: Mapping[str, Any], stride: int = 1) -> Prepared:
        """Fold k, every `stride`-th of its rows to fit on, ready for a fit with `params`.

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
        if (k, stride) not in folds:
            fit, score = self.folds[k]
            layout = self.layout_of(k, group)
            kept = {feature.name for feature in layout.fitted}
            made = [column for column in self.fitted_columns(k) if column.name in kept]
            rows = Extension(self.block.columns, layout.raw, made)
            folds[k, stride] = self.family.prepare(
                params,
                layout.learned,
                rows(self.block.values[fit][::stride]),
                self.y[fit][::stride],
                task=self.budget.task,
                threads=self.budget.threads,
                evaluation=(rows(self.block.values[score]), self.y[score]),
            )
        return folds[k, stride]

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
        return rank_columns(
            self.family,
            params,
            rounds,
            self.layout.learned,
            self.training_rows(k),
            self.y[fit],
            task=self.budget.task,
            threads=self.budget.threads,
            seed=self.budget.seed,
        )

    def training_rows(self, k: int) -> npt.NDArray[np.float32]:
        """Fold k's rows to fit on, all columns."""
        rows = Extension(self.block.columns, self.layout.raw, self.fitted_columns(k))
        return rows(self.block.values[self.folds[k][0]])

    def fitted_columns(self, k: int) -> tuple[FittedColumn, ...]:
        """The fitted features with their parameters of fold k."""
        fit, _ = self.folds[k]
        return fit_columns(self.layout.fitted, self.block.columns, self.block.values[fit])


def zero_rmse(y: npt.NDArray[np.float64], task: Task) -> float:
    """RMSE of the forecast that knows nothing: return 0, or P(up) = 0.5."""
    return float(np.sqrt(np.mean((y - (0.5 if task == "direction" else 0.0)) ** 2)))


def rung_name(progress: float) -> str:
    """What a trial that has got so far has been fitted on."""
    if progress == SAMPLED:
        return "the sample"
    return "1 fold" if progress == 100 else f"{progress / 100:g} folds"


def run_trial(
    cache: FoldCache,
    params: Mapping[str, Any],
    *,
    sample: bool = True,
    rank_below: float = 0.0,
    limits: Mapping[int, float] | None = None,
) -> Iterator[Progress]:
    """Fit and score on a sample, then fold after fold, the latest first, with a report after each.

    The latest fold has the most rows to fit on, nearly as many as the model that is fitted in the end. On
    those of the first fold a model that learns more from more rows may still look worse than a simple one.

    Parameters
    ----------
    cache:
        Family, rows, folds and budget.
    params:
        The family's parameters, and ``feature_group``.
    sample:
        False: without the sample, for a trial that is not going to be cut.
    rank_below:
        Rank the columns of every fold where the mean RMSE over the folds is below this: by the models of the
        trial itself, as `FoldCache.ranking` does by fits of its own.
    limits:
        Progress with the score at which a trial is cut there. A fit that is not going to get below it ends
        early; its score is then what it had reached.
    """
    limits = limits or {}
    zero = [zero_rmse(cache.y[score], cache.budget.task) for _, score in cache.folds]
    last = len(cache.folds) - 1
    if sample and cache.sample_stride > 1:
        sampled = _fitted(cache, params, last, cache.sample_stride, _short_patience(cache, params))
        yield Progress(SAMPLED, sampled.best_score / zero[last])
    fits: list[EarlyStopping] = []
    for k in range(last, -1, -1):
        finished = len(fits) + 1
        so_far = sum(fit.best_score / z for fit, z in zip(fits, zero[k + 1 :], strict=True))
        limit = (limits.get(100 * finished, math.inf) * finished - so_far) * zero[k]
        fits.insert(0, _fitted(cache, params, k, limit=limit))
        rmse = [fit.best_score for fit in fits]
        yield Progress(
            100 * len(fits),
            float(np.mean(np.divide(rmse, zero[k:]))),
            tuple(rmse),
            tuple(zero[k:]),
            tuple(fit.best_rounds for fit in fits),
            np.concatenate([f.best_predictions for f in fits], dtype=np.float32) if k == 0 else None,
            _contributions(cache, params, fits) if k == 0 and np.mean(rmse) < rank_below else None,
        )


def _contributions(
    cache: FoldCache, params: Mapping[str, Any], fits: Sequence[EarlyStopping]
) -> Contributions:
    rounds = mean_rounds([fit.best_rounds for fit in fits])
    shares = []
    for k, fit in enumerate(fits):
        if fit.training.rounds < rounds:
            fit.training.advance(rounds - fit.training.rounds)
        model = fit.training.model(min(rounds, fit.training.rounds))
        shares.append(dict(ranking_of(model, cache.training_rows(k), cache.budget.seed).shares))
    return Contributions(dict(params), rounds, shares, 0.0)


def mean_rounds(fold_rounds: Sequence[int]) -> int:
    """Boosting rounds of a fit on all rows: the mean of the folds' best."""
    return max(1, round(float(np.mean(fold_rounds))))


def _short_patience(cache: FoldCache, params: Mapping[str, Any]) -> int:
    """Early stopping on the sample: after 1 / (learning rate) rounds without a new best.

    Boosting with rate η takes in 1/η rounds about the same way as with any other (Friedman 2001): what has
    not got better by then is a trial to cut, and waiting as long as for a final score is most of its cost.
    """
    budget, rate = cache.budget, _learning_rate(cache, params)
    return min(budget.patience, max(1, math.ceil(1 / (rate * budget.round_step))))


def _learning_rate(cache: FoldCache, params: Mapping[str, Any]) -> float:
    return float(cache.family.filled(split_group(params)[0])["learning_rate"])


def _fitted(
    cache: FoldCache,
    params: Mapping[str, Any],
    k: int,
    stride: int = 1,
    patience: int | None = None,
    limit: float = math.inf,
) -> EarlyStopping:
    """Fold k, trained until its early stopping."""
    budget = cache.budget
    own, _, _ = split_group(params)
    prepared = cache.prepared(k, params, stride)
    training = cache.family.start(
        prepared, own, threads=budget.threads, seed=budget.seed, device=budget.device
    )
    y = cache.y[cache.folds[k][1]]
    settled = math.ceil(2 / _learning_rate(cache, params)) if cache.family.boosted else 0
    stopping = EarlyStopping(training, y, patience or budget.patience, budget.round_step, limit, settled)
    while not stopping.finished:
        stopping.advance()
    return stopping
