"""What Optuna and ASHA know about pruned, complete and recorded trials."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from marketray.tuning.actor import METRIC
from marketray.tuning.records import TrialRecord
from marketray.tuning.search import RungSearch, prepared_study, replayed_scheduler
from marketray.tuning.spaces import first_space, suggest

SPACE = first_space("ar", exogenous=("none",))


def record(number: int, rungs: list[list[float]], complete: bool = True) -> TrialRecord:
    return TrialRecord(
        trial_id=f"ar-stage1-{number:04d}",
        family="ar",
        stage=1,
        number=number,
        state="complete" if complete else "pruned",
        params={"lags": 1 + number, "exogenous": "none", "ridge": 0.0},
        score=rungs[-1][1],
        cv_rmse=rungs[-1][1] if complete else None,
        rounds=1,
        fold_rmse=[],
        fold_zero_rmse=[],
        fold_rounds=[],
        rungs=rungs,
        seconds=0.0,
        started_at=0.0,
        ended_at=0.0,
        predictions=None,
    )


RECORDS = [record(0, [[100, 0.99], [200, 0.98], [300, 0.97]]), record(1, [[100, 0.995]], complete=False)]


def test_recorded_trials_are_known_and_not_tried_again() -> None:
    points = [{"lags": 1, "exogenous": "none", "ridge": 0.0}, {"lags": 9, "exogenous": "none", "ridge": 0.0}]
    storage = prepared_study("s", SPACE, RECORDS, points)
    study = optuna.load_study(study_name="s", storage=storage)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING]
    assert study.best_value == 0.97
    assert study.trials[1].intermediate_values == {1: 0.995}
    trial = study.ask()
    suggest(trial, SPACE)
    assert trial.params == points[1]  # the only point without a record


def test_a_cut_trial_is_told_as_pruned_at_its_rung() -> None:
    search = RungSearch(
        space=partial(suggest, space=SPACE),
        metric=METRIC,
        mode="min",
        storage=prepared_study("s", SPACE, RECORDS, []),
        study_name="s",
    )
    for name in "ab":
        search.suggest(name)
    search.on_trial_result("a", {METRIC: 0.5, "training_iteration": 1})
    search.on_trial_complete("a", {METRIC: 0.4, "training_iteration": 2})
    search.on_trial_complete("b", {METRIC: 0.96, "training_iteration": 3, "complete": True})
    study = search._ot_study
    assert study is not None
    cut, whole = study.trials[-2:]
    assert (cut.state, cut.intermediate_values) == (TrialState.PRUNED, {1: 0.5, 2: 0.4})
    assert (whole.state, whole.value) == (TrialState.COMPLETE, 0.96)
    assert study.best_value == 0.96


@pytest.mark.parametrize("seed", range(5))
def test_a_replayed_scheduler_decides_as_the_one_that_saw_the_trials(seed: int) -> None:
    """Brute force: at each rung a score must be within the best third of those that reached it before."""
    r = np.random.default_rng(seed)
    live = replayed_scheduler([], 3)
    records: list[TrialRecord] = []
    seen: dict[int, list[float]] = {11: [], 33: [], 100: []}
    controller: Any = None
    for number in range(20):
        replayed = replayed_scheduler(records, 3)
        base, rungs, complete = r.normal(1, 0.1), [], True
        trials = [(s, SimpleNamespace(trial_id=f"{number}")) for s in (live, replayed)]
        for scheduler, trial in trials:
            scheduler.on_trial_add(controller, trial)  # type: ignore[arg-type]
        for progress in (11, 33, 100, 200, 300):
            score = base + r.normal(0, 0.02)
            rungs.append([float(progress), score])
            result = {"progress": progress, METRIC: score}
            decisions = [s.on_trial_result(controller, t, result) for s, t in trials]  # type: ignore[arg-type]
            assert decisions[0] == decisions[1]
            if progress in seen:
                before = seen[progress]
                expected = bool(before) and score > np.percentile(before, 100 / 3) + 1e-12
                assert decisions[0] == ("STOP" if expected else "CONTINUE")
                before.append(score)
            if decisions[0] == "STOP" and progress < 300:
                complete = False
                break
        records.append(record(number, rungs, complete))
    assert 2 <= sum(x.state == "complete" for x in records) < 12
