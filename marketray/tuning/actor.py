"""The Ray actor that runs trials, and what it is given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from marketray.hashing import digest
from marketray.models import get_family
from marketray.tuning.records import TrialRecord
from marketray.tuning.trial import Budget, Fold, FoldCache, Progress, run_trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from marketray.dataset.load import Block
    from marketray.features.fitted import FittedFeature
    from marketray.models.contribution import Ranking

__all__ = ["METRIC", "FamilyJob", "TrialActor", "Warm"]

METRIC = "score"
"""The reported key that trials are compared by."""


@dataclass(frozen=True)
class FamilyJob:
    """What one family's tuning needs besides the rows.

    Attributes
    ----------
    folder:
        ``<tuning folder>/<family>`` on the node that runs the job.
    cpus, concurrent:
        CPUs of one trial, and how many trials run at once.
    fitted:
        Features to fit on the training rows of each fold.
    feature_groups:
        Whether the folds are ranked after stage 1, and trees choose a group of columns in stage 2.
    rankings:
        Of each fold; none before stage 2.
    """

    family: str
    folder: str
    folds: tuple[Fold, ...]
    budget: Budget
    stage1_trials: int
    stage2_trials: int
    cpus: float = 1.0
    concurrent: int = 1
    pruning: bool = True
    max_rounds: int = 9_000
    max_lags: int = 60
    fitted: tuple[FittedFeature, ...] = ()
    feature_groups: bool = True
    rankings: tuple[Ranking, ...] = ()


@dataclass(frozen=True)
class Warm:
    """A complete trial whose reports are known, so that a later stage need not compute them again."""

    record: TrialRecord
    predictions: npt.NDArray[np.float32]

    def reports(self) -> Iterator[Progress]:
        """What the trial reported."""
        for i, (progress, score) in enumerate(self.record.rungs):
            if i + 1 < len(self.record.rungs):
                yield Progress(int(progress), score)
        r = self.record
        yield Progress(
            int(r.rungs[-1][0]),
            r.rungs[-1][1],
            tuple(r.fold_rmse),
            tuple(r.fold_zero_rmse),
            tuple(r.fold_rounds),
            self.predictions,
        )


class TrialActor(tune.Trainable):
    """A process that runs trials one after another and keeps the folds' binned rows between them."""

    def setup(  # type: ignore[override]  # tune.with_parameters passes the rest
        self, config: dict[str, Any], job: FamilyJob, block: list[ray.ObjectRef[Block]], warm: Warm | None
    ) -> None:
        """Map the shared rows; nothing is copied."""
        rows = ray.get(block[0])
        self._cache = FoldCache(get_family(job.family), rows, job.folds, job.budget, job.fitted, job.rankings)
        self._warm = warm
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in this process."""
        self._seconds = 0.0
        self._started_at = time.time()
        if self._warm is not None and digest(new_config) == digest(self._warm.record.params):
            self._reports = self._warm.reports()
        else:
            self._reports = run_trial(self._cache, new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run to the next rung."""
        start = time.perf_counter()
        report = next(self._reports)
        self._seconds += time.perf_counter() - start
        result: dict[str, Any] = {
            METRIC: report.score,
            "progress": report.progress,
            "seconds": self._seconds,
            "started_at": self._started_at,
            "ended_at": time.time(),
        }
        if report.predictions is not None:
            result |= {"done": True, "complete": report}
        return result
