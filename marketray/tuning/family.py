"""What a family tries next, and which of its trials go on: two stages, from the trials' records alone.

Nothing here knows Ray. What is suggested and what is cut follows from the trials' numbers: trial n is
suggested and judged by what the trials up to n − `concurrent` reported, all of which are finished before
it begins. Which worker was faster, or whether the tuning was killed in between, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import create_study
from optuna.trial import FixedTrial, Trial, TrialState, create_trial

from marketray.errors import TuningError
from marketray.models import get_family
from marketray.models.autoregression import exogenous_sets
from marketray.models.columns import lag_columns
from marketray.models.contribution import ALL, FEATURE_GROUP, Ranking, group_names
from marketray.tuning.contributions import Contributions, read_contributions, write_contributions
from marketray.tuning.records import TrialRecord, best_of, read_predictions, read_records, write_record
from marketray.tuning.spaces import Space, first_space, grouped, narrowed, suggest
from marketray.tuning.trial import SAMPLED

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.tuning.actor import FamilyJob

__all__ = [
    "REDUCTION",
    "SAMPLE_REDUCTION",
    "FamilySearch",
    "StageSearch",
    "fine_space",
    "limit_of",
    "space_of",
]

logger = logging.getLogger(__name__)

REDUCTION = 3
"""After every fold but the last the best 1 / REDUCTION of the trials goes on."""

SAMPLE_REDUCTION = {1: 2, 2: 3}
"""After the sample the best 1 / SAMPLE_REDUCTION, by stage: its order is less like that of all rows where
the whole space is tried, simple models and such that need many rows."""


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


def limit_of(peers: Sequence[float], reduction: int) -> float:
    """The score below which a trial goes on from a rung: asynchronous successive halving (Li et al. 2020).

    It does with a score among the ⌊n / reduction⌋ smallest, at least one, of the n at that rung, its own
    included. An equal score counts as the earlier trial's.
    """
    places = max(1, (len(peers) + 1) // reduction)
    return sorted(peers)[places - 1] if len(peers) >= places else float("inf")


class StageSearch:
    """One stage of one family.

    A space with no more points than the stage has trials is enumerated instead of sampled.

    Parameters
    ----------
    records:
        Of this stage's trials that are finished already. They are not run again, and the search goes on as
        if it had never been interrupted.
    """

    def __init__(self, job: FamilyJob, stage: int, space: Space, records: Sequence[TrialRecord]) -> None:
        self._job, self._stage, self._space = job, stage, space
        self.records = {r.number: r for r in records}
        self.wanted = job.stage1_trials if stage == 1 else job.stage2_trials
        points: list[dict[str, Any]] = [dict(space.start)]
        if space.size is not None and space.size <= self.wanted:
            points = sorted(space.points(), key=lambda p: p != points[0])  # the start first
            logger.info(
                "%s stage %d: all %d points instead of %d trials",
                job.family, stage, len(points), self.wanted,
            )  # fmt: skip
            self.wanted = len(points)
        self._study = create_study(sampler=TPESampler(seed=job.budget.seed + 1_000 * stage))
        for point in points:
            self._study.enqueue_trial(point)
        self._asked: list[Trial] = []
        self._told = 0

    @property
    def running(self) -> int:
        """How many trials have begun and have no record."""
        return sum(k not in self.records for k in range(len(self._asked)))

    @property
    def finished(self) -> bool:
        """Whether every trial has a record."""
        return len(self.records) >= self.wanted

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Number and params of the next trial without a record; None at the end and while it has to wait."""
        while (number := len(self._asked)) < self.wanted:
            known = number - self._job.concurrent + 1
            if any(k not in self.records for k in range(self._told, known)):
                return None
            for k in range(self._told, known):
                self._tell(self._asked[k], self.records[k])
            self._told = max(self._told, known)
            trial = self._study.ask()
            suggest(trial, self._space)
            self._asked.append(trial)
            if number not in self.records:
                return number, trial.params
        return None

    def goes_on(self, number: int, progress: float, score: float) -> bool:
        """Whether a trial that reported this score at this rung is worth going on with."""
        return score < self.limits(number).get(int(progress), float("inf"))

    def limits(self, number: int) -> dict[int, float]:
        """Progress with the score at which the trial is cut there, by those that are finished before it."""
        if not self._job.pruning:
            return {}
        before = [self.records[k] for k in range(number - self._job.concurrent + 1)]
        found = {}
        for progress in (SAMPLED, *range(100, 100 * len(self._job.folds), 100)):
            reduction = SAMPLE_REDUCTION[self._stage] if progress == SAMPLED else REDUCTION
            found[progress] = limit_of([s for r in before for p, s in r.rungs if p == progress], reduction)
        return found

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        if trial.params != record.params:  # recorded on a cluster with another number of trials at once
            self._study.tell(trial, state=TrialState.FAIL)
            self._study.add_trial(_frozen(record, self._space))
        elif record.state == "complete":
            self._study.tell(trial, record.score)
        else:  # told as complete, a score over fewer rows would compete with scores over all of them
            for step, (_, score) in enumerate(record.rungs):
                trial.report(score, step)
            self._study.tell(trial, state=TrialState.PRUNED)


class FamilySearch:
    """Both stages of one family, and its folder of records.

    When stage 1 is finished, the columns are ranked in each fold with the parameters and rounds of its best
    trial. Then stage 2 begins: in the space narrowed around that trial, whose record is copied as its first.

    Raises
    ------
    TuningError
        The columns leave the family nothing to learn from, or a record is not readable.
    """

    def __init__(self, job: FamilyJob, block: Block) -> None:
        self.job = job
        self._space = space_of(job, block.columns)
        self._row_ids = np.concatenate([block.row_ids[score] for _, score in job.folds])
        sizes = [len(block.y[score]) for _, score in job.folds]
        self._fold = np.repeat(np.arange(len(sizes), dtype=np.int8), sizes)
        self._stages = {1: StageSearch(job, 1, self._space, read_records(self._folder(1)))}
        self._ranked: Contributions | None = None
        self._ranking = False
        self._go_on()

    @property
    def records(self) -> list[TrialRecord]:
        """All records by stage and number."""
        return [s.records[k] for s in self._stages.values() for k in sorted(s.records)]

    @property
    def wanted(self) -> int:
        """How many trials there are to be, as far as is known."""
        stage2 = self._stages[2].wanted if 2 in self._stages else self.job.stage2_trials
        return self._stages[1].wanted + stage2

    @property
    def running(self) -> int:
        """How many trials have begun and have no record; a ranking under way counts as one."""
        return sum(s.running for s in self._stages.values()) + self._ranking

    @property
    def seconds_left(self) -> float:
        """Of computing the trials that have not begun, by the mean of those so far; infinite before any."""
        if not self.records:
            return float("inf")
        mean = sum(r.seconds for r in self.records) / len(self.records)
        return mean * (self.wanted - len(self.records) - self.running)

    @property
    def finished(self) -> bool:
        """Whether the columns are ranked, if they are to be, and every trial of both stages has a record."""
        return len(self.records) >= self.wanted and (self._ranked is not None or not self.job.feature_groups)

    def ask(self) -> dict[str, Any] | None:
        """What is to be done next; None while the family has to wait.

        A trial: ``family, stage, number, params``, the folds' ``rankings``, if `params` need them, and
        ``rank_below`` and ``limits``, see `run_trial`. Or ``family`` and ``rank``: params and rounds, see
        `rank_folds`.
        """
        found = self._stages[max(self._stages)].ask()
        if found is not None:
            number, params = found
            limits = self._stages[max(self._stages)].limits(number)
            grouped_by = self._ranked if params.get(FEATURE_GROUP, ALL) != ALL else None
            rankings = grouped_by.rankings if grouped_by is not None else ()
            trial = {"stage": max(self._stages), "number": number, "params": params, "rankings": rankings}
            return {"family": self.job.family, **trial, "rank_below": self._rank_below(), "limits": limits}
        if (
            self._stages[1].finished
            and self._ranked is None
            and self.job.feature_groups
            and not self._ranking
        ):
            self._ranking = True
            best = self._best_of_stage1()
            return {"family": self.job.family, "rank": {"params": best.params, "rounds": best.rounds}}
        return None

    def goes_on(self, stage: int, number: int, progress: float, score: float) -> bool:
        """As `StageSearch.goes_on`."""
        return self._stages[stage].goes_on(number, progress, score)

    def add(
        self,
        record: TrialRecord,
        predictions: npt.NDArray[np.float32] | None = None,
        contributions: Contributions | None = None,
    ) -> None:
        """Store a finished trial, and the columns' contributions where it is the best of stage 1 so far.

        Raises
        ------
        TuningError
            The record cannot be written, or no trial of stage 1 finished all folds.
        """
        write_record(self._folder(record.stage), record, self._row_ids, self._fold, predictions)
        self._stages[record.stage].records[record.number] = record
        if contributions is not None and best_of(self._stages[1].records.values()) is record:
            write_contributions(Path(self.job.folder), contributions)
        self._go_on()

    def add_ranking(self, contributions: Contributions) -> None:
        """Store the columns' contributions."""
        write_contributions(Path(self.job.folder), contributions)
        self._ranking = False
        self._go_on()

    def _rank_below(self) -> float:
        """The RMSE below which a trial that begins now would be the best of stage 1; 0 where none ranks."""
        if 2 in self._stages or not self.job.feature_groups:
            return 0.0
        best = best_of(self._stages[1].records.values())
        return float("inf") if best is None or best.cv_rmse is None else best.cv_rmse

    def _go_on(self) -> None:
        if 2 in self._stages or not self._stages[1].finished:
            return
        best = self._best_of_stage1()
        if self.job.feature_groups:
            stored = read_contributions(Path(self.job.folder))
            if stored is None or (stored.params, stored.rounds) != (best.params, best.rounds):
                return
            self._ranked = stored
        if self.job.stage2_trials > 0:
            self._begin_stage2(best, self._ranked.rankings if self._ranked is not None else ())

    def _begin_stage2(self, best: TrialRecord, rankings: tuple[Ranking, ...]) -> None:
        space = fine_space(self.job.family, self._space, best.params, rankings)
        self._stages[2] = StageSearch(self.job, 2, space, read_records(self._folder(2)))
        if 0 not in self._stages[2].records:
            predictions = read_predictions(self._folder(1), best)["prediction"].to_numpy()
            self.add(_first_of_stage2(best, dict(space.start)), np.asarray(predictions, np.float32))

    def _best_of_stage1(self) -> TrialRecord:
        coarse = self._stages[1].records.values()
        best = best_of(coarse)
        if best is None:
            family, folds = self.job.family, len(self.job.folds)
            msg = f"{family}: none of {len(coarse)} stage-1 trials finished all {folds} folds"
            raise TuningError(msg, hint="delete the family's folder of trial records and tune again")
        return best

    def _folder(self, stage: int) -> Path:
        return Path(self.job.folder) / f"stage{stage}"


def _first_of_stage2(best: TrialRecord, params: dict[str, Any]) -> TrialRecord:
    return replace(
        best,
        params=params,
        trial_id=f"{best.family}-stage2-0000",
        stage=2,
        number=0,
        seconds=0.0,
        started_at=best.ended_at,
        predictions="trial_0000.parquet",
    )


def _frozen(record: TrialRecord, space: Space) -> Any:
    complete = record.state == "complete"
    fixed = FixedTrial(record.params)
    suggest(fixed, space)
    distributions: dict[str, BaseDistribution] = fixed.distributions
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=record.score if complete else None,
        params=record.params,
        distributions=distributions,
        intermediate_values={step: score for step, (_, score) in enumerate(record.rungs)},
    )
