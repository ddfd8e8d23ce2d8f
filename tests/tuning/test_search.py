"""What Ray Tune is told: whose trial is next, which one stops, and what is recorded."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from marketray.tuning.actor import METRIC, FamilyJob
from marketray.tuning.contributions import Contributions, read_contributions
from marketray.tuning.family import FamilySearch
from marketray.tuning.records import read_predictions, read_records
from marketray.tuning.search import Record, Rungs, Suggest
from marketray.tuning.trial import Budget, Progress
from tests.tuning.rows import block, folds

ROWS = block(400, lags=4)


def families(folder: Path, *names: str, **more: Any) -> dict[str, FamilySearch]:
    values: dict[str, Any] = {"stage1_trials": 2, "stage2_trials": 0, "feature_groups": False, **more}
    jobs = (FamilyJob(n, str(folder / n), tuple(folds(400)), Budget(seed=3), **values) for n in names)
    return {job.family: FamilySearch(job, ROWS) for job in jobs}


def trial(config: dict[str, Any], **result: Any) -> Any:
    last = {METRIC: 0.98, "rungs": ((100.0, 0.98),), "seconds": 1.5, "started_at": 10.0, "ended_at": 12.0}
    return SimpleNamespace(trial_id="t", config=config, last_result={**last, **result})


def complete(config: dict[str, Any], rungs: tuple[tuple[float, float], ...]) -> tuple[Any, dict[str, Any]]:
    report = Progress(300, rungs[-1][1], (1e-3, 3e-3), (2e-3, 4e-3), (10, 21), np.ones(180, np.float32))
    done = {METRIC: rungs[-1][1], "complete": report}
    return trial(config, **{METRIC: rungs[-1][1], "rungs": rungs}), done


def test_the_family_with_the_least_behind_it_is_next(tmp_path: Path) -> None:
    both = families(tmp_path, "xgboost", "ar")
    suggest, record = Suggest(both, slots=2), Record(both)
    first, second = suggest.suggest("a"), suggest.suggest("b")
    assert first is not None
    assert second is not None
    assert [first["family"], second["family"]] == ["xgboost", "ar"]
    assert suggest.suggest("c") is None  # both slots are taken
    finished, result = complete(second, ((100.0, 0.9), (200.0, 0.9), (300.0, 0.9)))
    record.on_trial_result(1, [], finished, result)
    record.on_trial_complete(1, [], finished)
    third = suggest.suggest("c")
    assert third is not None
    assert (third["family"], third["number"]) == ("ar", 1)  # xgboost waits for its first
    suggest.on_trial_complete("b")
    assert suggest.suggest("d") is None
    suggest.on_trial_complete("a", error=True)
    assert suggest.suggest("d") == Searcher.FINISHED  # type: ignore[comparison-overlap]


def test_a_trial_stops_where_its_family_sees_no_use_in_it(tmp_path: Path) -> None:
    one = families(tmp_path, "ar")
    suggest, rungs, record = Suggest(one, slots=1), Rungs(one), Record(one)
    config = suggest.suggest("a")
    assert config is not None
    better = {"progress": 100, METRIC: 0.98}
    assert rungs.on_trial_result(None, trial(config), better) == TrialScheduler.CONTINUE
    finished, result = complete(config, ((100.0, 0.98), (200.0, 0.97), (300.0, 0.96)))
    record.on_trial_result(1, [], finished, result)
    assert "complete" not in result  # Tune would store the predictions too
    record.on_trial_complete(1, [], finished)
    config = suggest.suggest("b")
    assert config is not None
    worse = {"progress": 100, METRIC: 0.99}
    assert rungs.on_trial_result(None, trial(config), worse) == TrialScheduler.STOP
    record.on_trial_complete(1, [], trial(config, **{METRIC: 0.99, "rungs": ((100.0, 0.99),)}))
    assert suggest.suggest("c") == Searcher.FINISHED  # type: ignore[comparison-overlap]
    whole, cut = read_records(tmp_path / "ar" / "stage1")
    assert (whole.trial_id, whole.state, whole.score) == ("ar-stage1-0000", "complete", 0.96)
    assert (whole.cv_rmse, whole.rounds) == (2e-3, 16)  # the means; 15.5 rounds to the even number
    assert (whole.seconds, whole.started_at, whole.ended_at) == (1.5, 10.0, 12.0)
    assert whole.rungs == [[100.0, 0.98], [200.0, 0.97], [300.0, 0.96]]
    assert read_predictions(tmp_path / "ar" / "stage1", whole)["prediction"].to_pylist() == 180 * [1.0]
    assert (cut.state, cut.score, cut.cv_rmse, cut.predictions) == ("pruned", 0.99, None, None)


def test_a_ranking_is_stored_and_is_no_trial(tmp_path: Path) -> None:
    one = families(tmp_path, "ar", stage1_trials=1, feature_groups=True)
    suggest, record = Suggest(one, slots=1), Record(one)
    config = suggest.suggest("a")
    assert config is not None
    finished, result = complete(config, ((300.0, 0.96),))
    record.on_trial_result(1, [], finished, result)
    record.on_trial_complete(1, [], finished)
    config = suggest.suggest("b")
    assert config is not None
    assert set(config) == {"family", "rank"}
    found = Contributions(**config["rank"], folds=[{"return_1_lag_0": 1.0}], seconds=2.0)
    result = {METRIC: 0.0, "contributions": found}
    record.on_trial_result(1, [], trial(config), result)
    assert result == {METRIC: 0.0}
    record.on_trial_complete(1, [], trial(config))
    assert read_contributions(tmp_path / "ar") == found
    assert len(one["ar"].records) == 1
    assert suggest.suggest("c") == Searcher.FINISHED  # type: ignore[comparison-overlap]


def test_tune_stores_none_of_it(tmp_path: Path) -> None:
    one = families(tmp_path, "ar")
    for part in (Suggest(one, 1), Rungs(one), Record(one)):
        assert vars(pickle.loads(pickle.dumps(part))) == {}
    Suggest(one, 1).save_to_dir(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
