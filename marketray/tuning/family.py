"""Both stages of one family's tuning, run in a Ray task of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ray

from marketray.errors import TuningError
from marketray.models import get_family
from marketray.models.autoregression import exogenous_sets
from marketray.models.columns import lag_columns
from marketray.tuning.actor import FamilyJob, Warm
from marketray.tuning.records import TrialRecord, best_of, read_predictions
from marketray.tuning.search import run_stage
from marketray.tuning.spaces import Space, first_space, narrowed

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = ["space_of", "tune_family"]


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


def tune_family(job: FamilyJob, block: list[ray.ObjectRef[Block]]) -> list[TrialRecord]:
    """Run stage 1, narrow the space around its best trial, run stage 2; return all records.

    Trials with a record are not run again.

    Raises
    ------
    TuningError
        A trial failed, or no trial of stage 1 finished all folds.
    """
    rows = ray.get(block[0])
    first = space_of(job, rows.columns)
    coarse = run_stage(job, 1, first, block[0])
    best = best_of(coarse)
    if best is None:
        msg = f"{job.family}: none of {len(coarse)} stage-1 trials finished all {len(job.folds)} folds"
        raise TuningError(msg, hint="delete the family's folder of trial records and tune again")
    if job.stage2_trials == 0:
        return coarse
    predictions = read_predictions(Path(job.folder) / "stage1", best)["prediction"].to_numpy()
    warm = Warm(best, np.asarray(predictions, np.float32))
    return coarse + run_stage(job, 2, narrowed(first, best.params), block[0], warm)
