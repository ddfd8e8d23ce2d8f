"""What a tuning found: each family's best trial, and how the time was spent."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.errors import TuningError
from marketray.tuning.contributions import Contributions, read_contributions
from marketray.tuning.records import TrialRecord, best_of, read_records

if TYPE_CHECKING:
    from marketray.tuning.actor import FamilyJob

__all__ = ["FamilyBest", "TuneResult", "overlap_share", "read_result", "stored", "summary"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FamilyBest:
    """A family's best trial among those that finished all folds.

    Attributes
    ----------
    params, rounds:
        What to refit with: ``get_family(name).with_rounds(params, rounds)``. `rounds` is the mean over the
        folds of the best boosting rounds.
    cv_rmse:
        Mean RMSE over the folds, a fraction; slightly optimistic, see `marketray.tuning.trial`.
    cv_score:
        Mean over the folds of RMSE / RMSE of the zero forecast.
    predictions:
        Path of the out-of-fold predictions (row_id, fold, prediction as float32).
    enumerated:
        Stages whose space had fewer points than trials were asked for, so that all of it was tried.
    ranked_with:
        ``params`` and ``rounds`` of the models whose contributions make the feature groups; None where the
        columns were not ranked.
    importance:
        Shares of contribution, see `Contributions.importance`; None where the columns were not ranked.
    """

    family: str
    params: dict[str, Any]
    rounds: int
    cv_rmse: float
    cv_score: float
    stage: int
    trial_id: str
    n_trials: int
    n_complete: int
    n_pruned: int
    predictions: str
    enumerated: list[int]
    started_at: float
    ended_at: float
    ranked_with: dict[str, Any] | None = None
    importance: dict[str, Any] | None = None


@dataclass(frozen=True)
class TuneResult:
    """What a tuning found.

    Attributes
    ----------
    families:
        Best trial by family.
    seconds:
        Wall clock of the run that finished the tuning.
    overlap_share:
        Time in which all families ran stage-1 trials, over the shortest family's stage 1; 1 for one family.
        None where a family had no trial of stage 1 left to run.
    overhead_share:
        (wall clock − ideal) / ideal; ideal is the computing time of the trials, and of ranking the columns
        between the stages, over the number of trials at once. None where nothing was left to compute.
    resumed:
        Trials that a run which did not finish had left. Both shares are of this run's own trials.
    skipped:
        Whether a finished tuning of the same key was found.
    """

    tuning_key: str
    task: str
    families: dict[str, FamilyBest]
    seconds: float
    overlap_share: float | None
    overhead_share: float | None
    trials: int
    folder: str
    resumed: int = 0
    parent_run_id: str | None = None
    skipped: bool = False


def overlap_share(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the intervals' intersection over the length of the shortest."""
    common = min(end for _, end in intervals) - max(start for start, _ in intervals)
    shortest = min(end - start for start, end in intervals)
    return 1.0 if shortest <= 0 and common >= 0 else max(0.0, common) / max(shortest, 1e-9)


def summary(
    jobs: list[FamilyJob],
    records: dict[str, list[TrialRecord]],
    slots: int,
    folder: Path,
    key: str,
    task: str,
    seconds: float,
    before: Collection[str] = (),
) -> TuneResult:
    """Put together what the families' records say.

    Parameters
    ----------
    slots, seconds:
        Trials at once, and the wall clock of the run.
    before:
        What `stored` said when it began.

    Raises
    ------
    TuningError
        A family has no trial that finished all folds.
    """
    ranked = {job.family: read_contributions(folder / job.family) for job in jobs}
    families = {
        job.family: _family_best(job, records[job.family], folder, ranked[job.family]) for job in jobs
    }
    own = {name: [r for r in found if r.trial_id not in before] for name, found in records.items()}
    computing = sum(r.seconds for found in own.values() for r in found)
    computing += sum(c.seconds for name, c in ranked.items() if c is not None and name not in before)
    ideal = computing / slots
    trials = sum(map(len, records.values()))
    return TuneResult(
        tuning_key=key,
        task=task,
        families=families,
        seconds=seconds,
        overlap_share=_overlap_of_stage1(list(own.values())),
        overhead_share=(seconds - ideal) / ideal if ideal else None,
        trials=trials,
        folder=str(folder),
        resumed=trials - sum(map(len, own.values())),
    )


def stored(jobs: list[FamilyJob], folder: Path) -> set[str]:
    """Ids of the trials that are finished already, and names of the families whose columns are ranked.

    Raises
    ------
    TuningError
        A record is not readable.
    """
    stages = [folder / job.family / f"stage{stage}" for job in jobs for stage in (1, 2)]
    trials = {record.trial_id for stage in stages for record in read_records(stage)}
    return trials | {job.family for job in jobs if read_contributions(folder / job.family) is not None}


def _overlap_of_stage1(families: Sequence[Sequence[TrialRecord]]) -> float | None:
    coarse = [[r for r in records if r.stage == 1] for records in families]
    if not all(coarse):
        return None
    return overlap_share([(min(r.started_at for r in rs), max(r.ended_at for r in rs)) for rs in coarse])


def _family_best(
    job: FamilyJob, records: list[TrialRecord], folder: Path, ranked: Contributions | None
) -> FamilyBest:
    best = best_of(records)
    if best is None or best.cv_rmse is None or best.rounds is None:
        msg = f"{job.family}: none of {len(records)} trials finished all {len(job.folds)} folds"
        raise TuningError(msg, hint="raise tuning.stage1_trials")
    asked = {1: job.stage1_trials, 2: job.stage2_trials}
    enumerated = [s for s in asked if sum(r.stage == s for r in records) < asked[s]]
    for stage in enumerated:
        logger.info("tune: %s stage %d: the whole space was tried, it has fewer points", job.family, stage)
    return FamilyBest(
        family=job.family,
        params=best.params,
        rounds=best.rounds,
        cv_rmse=best.cv_rmse,
        cv_score=best.score,
        stage=best.stage,
        trial_id=best.trial_id,
        n_trials=len(records),
        n_complete=sum(r.state == "complete" for r in records),
        n_pruned=sum(r.state == "pruned" for r in records),
        predictions=str(folder / job.family / f"stage{best.stage}" / str(best.predictions)),
        enumerated=enumerated,
        started_at=min(r.started_at for r in records),
        ended_at=max(r.ended_at for r in records),
        ranked_with={"params": ranked.params, "rounds": ranked.rounds} if ranked else None,
        importance=ranked.importance() if ranked else None,
    )


def read_result(path: Path) -> TuneResult | None:
    """The finished tuning stored at `path`, marked as skipped; None where there is none.

    Raises
    ------
    TuningError
        The file is not readable.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text())
        value["families"] = {n: FamilyBest(**b) for n, b in value["families"].items()}
        return TuneResult(**{**value, "skipped": True})
    except (OSError, ValueError, TypeError, KeyError) as e:
        msg = f"{path}: not a readable tuning result ({e})"
        raise TuningError(msg, hint="delete this file; finished trials are kept") from e
