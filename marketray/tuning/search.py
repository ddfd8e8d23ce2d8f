"""One stage of one family on Ray Tune: TPE suggests, ASHA cuts, a callback records."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import create_study
from optuna.trial import FixedTrial, TrialState, create_trial
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from marketray.errors import MarketrayError, TuningError
from marketray.hashing import digest
from marketray.tuning.actor import METRIC, FamilyJob, TrialActor, Warm
from marketray.tuning.records import TrialRecord, read_records, write_record
from marketray.tuning.spaces import Space, suggest

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.tuning.trial import Progress

__all__ = [
    "RecordTrials",
    "RungSearch",
    "distributions_of",
    "prepared_study",
    "replayed_scheduler",
    "run_stage",
]

logger = logging.getLogger(__name__)

REDUCTION = 3
_MAX_FAILURES = 2  # of an actor, such as a lost node; a trial starts again from its beginning


class RungSearch(OptunaSearch):
    """OptunaSearch that tells a trial cut at a rung as pruned, with its value at that rung.

    Told as complete, its score over fewer folds would compete with scores over all of them.
    """

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how the trial ended."""
        if result is not None and not error and "complete" not in result:
            self.on_trial_result(trial_id, result)
            result = None
        super().on_trial_complete(trial_id, result=result, error=error)


class RecordTrials(tune.Callback):
    """Write every finished trial's record, in the process that drives this stage."""

    def __init__(self, folder: str, family: str, stage: int, number: int, row_ids: Any, fold: Any) -> None:
        self._folder, self._family, self._stage, self._next = folder, family, stage, number
        self._row_ids, self._fold = row_ids, fold
        self._rungs: dict[str, list[list[float]]] = {}
        self._complete: dict[str, Progress] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the report; the predictions leave the result, so that Tune does not store them too."""
        del iteration, trials, info
        rungs = self._rungs.setdefault(trial.trial_id, [])
        if rungs and result["progress"] <= rungs[-1][0]:  # the trial began again after a failure
            rungs.clear()
        rungs.append([float(result["progress"]), float(result[METRIC])])
        if "complete" in result:
            self._complete[trial.trial_id] = result["complete"]
            result["complete"] = True

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the record."""
        del iteration, trials, info
        last = trial.last_result
        report = self._complete.pop(trial.trial_id, None)
        number, self._next = self._next, self._next + 1
        record = TrialRecord(
            trial_id=f"{self._family}-stage{self._stage}-{number:04d}",
            family=self._family,
            stage=self._stage,
            number=number,
            state="complete" if report else "pruned",
            params=dict(trial.config),
            score=float(last[METRIC]),
            cv_rmse=float(np.mean(report.fold_rmse)) if report else None,
            rounds=max(1, round(float(np.mean(report.fold_rounds)))) if report else None,
            fold_rmse=list(report.fold_rmse) if report else [],
            fold_zero_rmse=list(report.fold_zero_rmse) if report else [],
            fold_rounds=list(report.fold_rounds) if report else [],
            rungs=self._rungs.pop(trial.trial_id, []),
            seconds=float(last["seconds"]),
            started_at=float(last["started_at"]),
            ended_at=float(last["ended_at"]),
            predictions=f"trial_{number:04d}.parquet" if report else None,
        )
        predictions = report.predictions if report else None
        write_record(Path(self._folder), record, self._row_ids, self._fold, predictions)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Forget a failed trial; a later run tries again."""
        del iteration, trials, info
        self._rungs.pop(trial.trial_id, None)


def prepared_study(
    name: str, space: Space, records: Sequence[TrialRecord], points: Sequence[dict[str, Any]]
) -> InMemoryStorage:
    """Optuna's memory: the trials that are known already, and the points to try first."""
    storage = InMemoryStorage()
    study = create_study(storage=storage, study_name=name, direction="minimize")
    for record in records:
        complete = record.state == "complete"
        trial = create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=record.score if complete else None,
            params=record.params,
            distributions=distributions_of(space, record.params),
            intermediate_values={i + 1: score for i, (_, score) in enumerate(record.rungs)},
        )
        study.add_trial(trial)
    known = {digest(r.params) for r in records}
    for point in points:
        if digest(point) not in known:
            study.enqueue_trial(point)
    return storage


def distributions_of(space: Space, params: dict[str, Any]) -> dict[str, BaseDistribution]:
    """Optuna's description of `space` at the point `params`."""
    fixed = FixedTrial(params)
    suggest(fixed, space)
    return fixed.distributions


def replayed_scheduler(records: Sequence[TrialRecord], folds: int) -> ASHAScheduler:
    """ASHA over the rungs (Li et al. 2020), with what recorded trials reported at them."""
    scheduler = ASHAScheduler(
        time_attr="progress",
        metric=METRIC,
        mode="min",
        grace_period=11,
        max_t=100 * folds + 1,
        reduction_factor=REDUCTION,
    )
    for record in records:
        stub: Any = SimpleNamespace(trial_id=record.trial_id)
        controller: Any = None
        scheduler.on_trial_add(controller, stub)
        for progress, score in record.rungs:
            scheduler.on_trial_result(controller, stub, {"progress": progress, METRIC: score})
    return scheduler


def run_stage(
    job: FamilyJob,
    stage: int,
    space: Space,
    block: ray.ObjectRef[Block],
    warm: Warm | None = None,
) -> list[TrialRecord]:
    """Run the trials of one stage that have no record yet, and return all its records.

    A space with no more points than the stage has trials is enumerated instead of sampled.

    Raises
    ------
    TuningError
        A trial failed.
    """
    folder = Path(job.folder) / f"stage{stage}"
    done = read_records(folder)
    wanted = job.stage1_trials if stage == 1 else job.stage2_trials
    points: list[dict[str, Any]] = [dict(space.start)]
    if space.size is not None and space.size <= wanted:
        points = sorted(space.points(), key=lambda p: p != points[0])  # the start first
        logger.info("%s stage %d: all %d points instead of %d trials", job.family, stage, len(points), wanted)
        wanted = len(points)
    if len(done) < wanted:
        _tune(job, stage, space, block, warm, done, points, wanted - len(done))
        done = read_records(folder)
    return done


def _tune(
    job: FamilyJob,
    stage: int,
    space: Space,
    block: ray.ObjectRef[Block],
    warm: Warm | None,
    done: list[TrialRecord],
    points: list[dict[str, Any]],
    trials: int,
) -> None:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"  # our records are the state to resume from
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(job.concurrent)
    name = f"tune-{job.family}-stage{stage}"
    trainable = tune.with_parameters(TrialActor, job=job, block=[block], warm=warm)
    tune.register_trainable(name, tune.with_resources(trainable, {"cpu": job.cpus}))
    rows = ray.get(block)
    row_ids = np.concatenate([rows.row_ids[score] for _, score in job.folds])
    fold = np.concatenate([np.full(len(rows.y[s]), k, np.int8) for k, (_, s) in enumerate(job.folds)])
    number = max((r.number for r in done), default=-1) + 1
    recorder = RecordTrials(str(Path(job.folder) / f"stage{stage}"), job.family, stage, number, row_ids, fold)
    search = RungSearch(
        space=partial(suggest, space=space),
        metric=METRIC,
        mode="min",
        sampler=TPESampler(seed=job.budget.seed + 1_000 * stage + len(done)),
        storage=prepared_study(name, space, done, points),
        study_name=name,
    )
    scheduler = replayed_scheduler(done, len(job.folds)) if job.pruning else None
    with tempfile.TemporaryDirectory(prefix="marketray-tune-") as scratch:
        tuner = tune.Tuner(
            name,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=trials,
                max_concurrent_trials=job.concurrent,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=scratch,
                callbacks=[recorder],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                verbose=0,
            ),
        )
        results = tuner.fit()
    if results.errors:
        raise _failed(name, list(results.errors), trials)


def _failed(name: str, errors: list[Any], trials: int) -> TuningError:
    """What to tell about failed trials: the first failure, in its own words where it is one of ours."""
    cause = getattr(errors[0], "cause", errors[0])
    if isinstance(cause, MarketrayError):
        first, hint = cause.message, cause.hint
    else:
        first, hint = str(errors[0]).strip().splitlines()[-1], "see the trial's log in the Ray dashboard"
    return TuningError(f"{name}: {len(errors)} of {trials} trials failed; the first: {first}", hint=hint)


def _trial_name(trial: Any) -> str:
    return f"{trial.trainable_name.removeprefix('tune-')}-{trial.trial_id}"
