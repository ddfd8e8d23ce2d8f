"""The Ray actor that runs trials, and what it is given."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from marketray.models import get_family
from marketray.tuning.contributions import rank_folds
from marketray.tuning.trial import Budget, Fold, FoldCache, run_trial

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.features.fitted import FittedFeature

__all__ = ["METRIC", "FamilyJob", "TrialActor"]

METRIC = "score"
"""The reported key that trials are compared by."""


@dataclass(frozen=True)
class FamilyJob:
    """What one family's tuning needs besides the rows.

    Attributes
    ----------
    folder:
        ``<tuning folder>/<family>`` on the node that runs the job.
    concurrent:
        How many of its trials may run at once, whatever the cluster has: what a trial is suggested and judged
        by depends on it.
    fitted:
        Features to fit on the training rows of each fold.
    feature_groups:
        Whether the folds are ranked after stage 1, and trees choose a group of columns in stage 2.
    """

    family: str
    folder: str
    folds: tuple[Fold, ...]
    budget: Budget
    stage1_trials: int
    stage2_trials: int
    concurrent: int = 1
    pruning: bool = True
    max_rounds: int = 9_000
    max_lags: int = 60
    fitted: tuple[FittedFeature, ...] = ()
    feature_groups: bool = True


class TrialActor(tune.Trainable):
    """A process that runs trials of any family one after another and keeps their binned rows between them."""

    def setup(  # type: ignore[override]  # tune.with_parameters passes the rest
        self, config: dict[str, Any], jobs: tuple[FamilyJob, ...], block: list[ray.ObjectRef[Block]]
    ) -> None:
        """Map the shared rows; nothing is copied."""
        rows = ray.get(block[0])
        self._caches = {
            job.family: FoldCache(get_family(job.family), rows, job.folds, job.budget, job.fitted)
            for job in jobs
        }
        self._pruning = {job.family: job.pruning for job in jobs}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin what `FamilySearch.ask` gave out, in this process."""
        self._seconds = 0.0
        self._started_at = time.time()
        self._rungs: list[tuple[float, float]] = []
        self._cache = self._caches[new_config["family"]]
        self._to_rank = new_config.get("rank")
        if self._to_rank is None:
            self._cache.rankings = new_config["rankings"]
            self._reports = run_trial(
                self._cache,
                new_config["params"],
                sample=self._pruning[new_config["family"]],
                rank_below=new_config["rank_below"],
                limits=new_config["limits"],
            )
        return True

    def step(self) -> dict[str, Any]:
        """Run to the next rung; or rank the columns of every fold."""
        if self._to_rank is not None:
            return {METRIC: 0.0, "done": True, "contributions": rank_folds(self._cache, **self._to_rank)}
        start = time.perf_counter()
        report = next(self._reports)
        self._seconds += time.perf_counter() - start
        self._rungs.append((float(report.progress), float(report.score)))
        result: dict[str, Any] = {
            METRIC: report.score,
            "progress": report.progress,
            "rungs": tuple(self._rungs),
            "seconds": self._seconds,
            "started_at": self._started_at,
            "ended_at": time.time(),
        }
        if report.predictions is not None:
            result |= {"done": True, "complete": report}
        return result
