"""Both stages of one family's tuning, run in a Ray task of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from marketray.errors import TuningError
from marketray.models import get_family
from marketray.models.autoregression import exogenous_sets
from marketray.models.columns import lag_columns
from marketray.models.contribution import Ranking, group_names
from marketray.tuning.actor import FamilyJob, Warm
from marketray.tuning.contributions import stored_or_ranked
from marketray.tuning.records import TrialRecord, best_of, read_predictions
from marketray.tuning.search import run_stage
from marketray.tuning.spaces import Space, first_space, grouped, narrowed
from marketray.tuning.trial import FoldCache

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = ["fine_space", "space_of", "tune_family"]


def space_of(job: FamilyJob, columns: tuple[str, ...]) -> Space:
    """The family's first space on these columns.

    Raises
    ------
    TuningError
        The columns leave the family nothing to learn from.
    """
    if not get_family(job.family).columns(columns) or (job.family == "ar" and not lag_columns(columns)):
        msg = f"{job.family}: none of the {len(columns)} columns is for this family"
        raise TuningError(msg, hint="keep the feature groups it needs, or leave the family out")
    lags = min(job.max_lags, max(len(lag_columns(columns)), 1))
    return first_space(
        job.family,
        task=job.budget.task,
        max_rounds=job.max_rounds,
        max_lags=lags,
        exogenous=exogenous_sets(columns),
    )


def fine_space(family: str, first: Space, best: dict[str, Any], rankings: tuple[Ranking, ...]) -> Space:
    """The space of stage 2 around stage 1's best point.

    With the folds ranked, trees also choose a group of columns by contribution. The autoregression has its
    own sets of exogenous columns instead.
    """
    space = narrowed(first, best)
    if not rankings or not get_family(family).boosted:
        return space
    return grouped(space, group_names(rankings))


def tune_family(job: FamilyJob, block: list[ray.ObjectRef[Block]]) -> list[TrialRecord]:
    """Run stage 1, rank the columns in each fold, narrow the space, run stage 2; return all records.

    Trials with a record are not run again. The ranking models have the parameters and rounds of stage 1's
    best trial, and are fitted here, in the family's own share of the CPUs, while none of its trials runs.

    Raises
    ------
    TuningError
        A trial failed, or no trial of stage 1 finished all folds.
    """
    rows = ray.get(block[0])
    first = space_of(job, rows.columns)
    coarse = run_stage(job, 1, first, block[0])
    best = best_of(coarse)
    if best is None or best.rounds is None:
        msg = f"{job.family}: none of {len(coarse)} stage-1 trials finished all {len(job.folds)} folds"
        raise TuningError(msg, hint="delete the family's folder of trial records and tune again")
    if job.feature_groups:
        cache = FoldCache(get_family(job.family), rows, job.folds, job.budget, job.fitted)
        ranked = stored_or_ranked(Path(job.folder), cache, best.params, best.rounds)
        job = replace(job, rankings=ranked.rankings)
    if job.stage2_trials == 0:
        return coarse
    predictions = read_predictions(Path(job.folder) / "stage1", best)["prediction"].to_numpy()
    fine = fine_space(job.family, first, best.params, job.rankings)
    warm = Warm(replace(best, params=dict(fine.start)), np.asarray(predictions, np.float32))
    return coarse + run_stage(job, 2, fine, block[0], warm)
