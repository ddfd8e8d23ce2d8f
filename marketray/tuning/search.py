"""All families' trials in one run of Ray Tune: the families suggest and judge, a callback records.

One Tuner, so that a worker takes the next trial of whichever family has one, and keeps its process, its
libraries and its binned rows from the first trial to the last.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from marketray.errors import MarketrayError, TuningError
from marketray.tuning.actor import METRIC, FamilyJob, TrialActor
from marketray.tuning.family import FamilySearch
from marketray.tuning.records import TrialRecord
from marketray.tuning.trial import mean_rounds

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.tuning.trial import Progress

__all__ = ["Record", "Rungs", "Suggest", "tune_families"]

_MAX_FAILURES = 2  # of an actor, such as a lost node; a trial starts again from its beginning
_NAME = "tune"

Families = Mapping[str, FamilySearch]


class _Unsaved:
    """Tune pickles its parts in order to resume; a tuning resumes from its records instead."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Suggest(_Unsaved, Searcher):
    """The next trial comes from the family that has the most work left, by the time of its trials so far.

    So the slowest family, whose second stage waits for its first, is not the one that is left at the end.

    Parameters
    ----------
    slots:
        Trials at once, of all families together.
    """

    def __init__(self, families: Families, slots: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._families, self._slots, self._failed = families, slots, False

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A trial, None while none can begin, ``FINISHED`` when there is none left."""
        del trial_id
        none_left: Any = Searcher.FINISHED
        families = self._families.values()
        if self._failed or all(f.finished for f in families):
            return none_left  # type: ignore[no-any-return]
        if sum(f.running for f in families) >= self._slots:
            return None
        for family in sorted(families, key=lambda f: -f.seconds_left):
            config = family.ask()
            if config is not None:
                return config
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """After a failure no more trials begin."""
        del trial_id, result
        self._failed |= error

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing."""


class Rungs(_Unsaved, FIFOScheduler):
    """Stops a trial at a rung where its family finds it not worth going on with."""

    def __init__(self, families: Families) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._families = families

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the trial's family."""
        del tune_controller
        c = trial.config
        on = self._families[c["family"]].goes_on(c["stage"], c["number"], result["progress"], result[METRIC])
        return self.CONTINUE if on else self.STOP


class Record(_Unsaved, tune.Callback):
    """Hand every finished trial's record to its family, in the process that drives the tuning."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._complete: dict[str, Progress] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep what is found at the end; it leaves the result, so that Tune does not store it too."""
        del iteration, trials, info
        report = result.pop("complete", None)
        if report is not None:
            self._complete[trial.trial_id] = report
        contributions = result.pop("contributions", None)
        if contributions is not None:
            self._families[trial.config["family"]].add_ranking(contributions)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the record of a trial; a ranking has none."""
        del iteration, trials, info
        last, config = trial.last_result, trial.config
        if "rank" in config:
            return
        report = self._complete.pop(trial.trial_id, None)
        number, family, stage = config["number"], config["family"], config["stage"]
        record = TrialRecord(
            trial_id=f"{family}-stage{stage}-{number:04d}",
            family=family,
            stage=stage,
            number=number,
            state="complete" if report else "pruned",
            params=dict(config["params"]),
            score=float(last[METRIC]),
            cv_rmse=float(np.mean(report.fold_rmse)) if report else None,
            rounds=mean_rounds(report.fold_rounds) if report else None,
            fold_rmse=list(report.fold_rmse) if report else [],
            fold_zero_rmse=list(report.fold_zero_rmse) if report else [],
            fold_rounds=list(report.fold_rounds) if report else [],
            rungs=[list(rung) for rung in last["rungs"]],
            seconds=float(last["seconds"]),
            started_at=float(last["started_at"]),
            ended_at=float(last["ended_at"]),
            predictions=f"trial_{number:04d}.parquet" if report else None,
        )
        if report is None:
            self._families[family].add(record)
        else:
            self._families[family].add(record, report.predictions, report.contributions)


def tune_families(
    jobs: Sequence[FamilyJob], slots: int, each: dict[str, float], block: list[ray.ObjectRef[Block]]
) -> dict[str, list[TrialRecord]]:
    """Run the trials of both stages of all families that have no record yet; return all records by family.

    Parameters
    ----------
    slots, each:
        Trials at once, and what each asks Ray for: ``cpu``, and ``gpu`` where it is to have one.

    Raises
    ------
    TuningError
        A trial failed, or a family has nothing to learn from, or no trial of stage 1 that finished all folds.
    """
    rows = ray.get(block[0])
    families = {job.family: FamilySearch(job, rows) for job in jobs}
    if not all(f.finished for f in families.values()):
        _fit(families, slots, each, block)
    return {name: family.records for name, family in families.items()}


def _fit(families: Families, slots: int, each: dict[str, float], block: list[ray.ObjectRef[Block]]) -> None:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"  # our records are the state to resume from
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)
    jobs = tuple(f.job for f in families.values())
    trainable = tune.with_parameters(TrialActor, jobs=jobs, block=block)
    tune.register_trainable(_NAME, tune.with_resources(trainable, each))
    with tempfile.TemporaryDirectory(prefix="marketray-tune-") as scratch:
        tuner = tune.Tuner(
            _NAME,
            tune_config=tune.TuneConfig(
                search_alg=Suggest(families, slots),
                scheduler=Rungs(families),
                num_samples=sum(f.wanted + 1 for f in families.values()),  # a ranking in each
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=_NAME,
                storage_path=scratch,
                callbacks=[Record(families)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                verbose=0,
            ),
        )
        results = tuner.fit()
    if results.errors:
        raise _failed(list(results.errors))


def _failed(errors: list[Any]) -> TuningError:
    """What to tell about failed trials: the first failure, in its own words where it is one of ours."""
    cause = getattr(errors[0], "cause", errors[0])
    if isinstance(cause, MarketrayError):
        first, hint = cause.message, cause.hint
    else:
        first, hint = str(errors[0]).strip().splitlines()[-1], "see the trial's log in the Ray dashboard"
    return TuningError(f"tune: {len(errors)} trials failed; the first: {first}", hint=hint)


def _trial_name(trial: Any) -> str:
    c = trial.config
    what = "ranking" if "rank" in c else f"stage{c['stage']}-{c['number']:04d}"
    return f"{c['family']}-{what}-{trial.trial_id}"
