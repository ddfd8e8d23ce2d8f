"""What a family tries next and what it cuts, with invented scores in place of fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from marketray.errors import TuningError
from marketray.hashing import digest
from marketray.tuning.actor import FamilyJob
from marketray.tuning.contributions import Contributions, read_contributions
from marketray.tuning.family import FamilySearch, StageSearch, limit_of, space_of
from marketray.tuning.records import TrialRecord, read_predictions
from marketray.tuning.spaces import first_space
from marketray.tuning.trial import Budget
from tests.tuning.rows import block, folds

ROWS = block(400, lags=4)
FOLDS = tuple(folds(400))
SHARES = [{f"x{k}": (k + 1) / 10 for k in range(4)}] * 3
RUNGS = (10.0, 100.0, 200.0, 300.0)


def job(folder: Path, family: str = "xgboost", **more: Any) -> FamilyJob:
    base = FamilyJob(family, str(folder), FOLDS, Budget(seed=3), stage1_trials=8, stage2_trials=6)
    return replace(base, **more)


def scores(params: dict[str, Any]) -> list[float]:
    """At every rung: a level and some noise that follow from the params alone."""
    r = np.random.default_rng(int(digest(params)[:8], 16))
    return list(r.normal(1, 0.1) + r.normal(0, 0.03, len(RUNGS)))


def record_of(config: dict[str, Any], rungs: list[list[float]], complete: bool) -> TrialRecord:
    number = config["number"]
    return TrialRecord(
        trial_id=f"{config['family']}-stage{config['stage']}-{number:04d}",
        **{name: config[name] for name in ("family", "stage", "number", "params")},
        state="complete" if complete else "pruned",
        score=rungs[-1][1],
        cv_rmse=rungs[-1][1] if complete else None,
        rounds=1 if complete else None,
        fold_rmse=[],
        fold_zero_rmse=[],
        fold_rounds=[],
        rungs=rungs,
        seconds=0.0,
        started_at=0.0,
        ended_at=0.0,
        predictions=f"trial_{number:04d}.parquet" if complete else None,
    )


def run(search: FamilySearch, workers: int, seed: int = 0, most: int = 10**6) -> None:
    """`workers` at once, whose trials advance in random order; killed after `most` records."""
    r = np.random.default_rng(seed)
    running: list[tuple[dict[str, Any], list[list[float]]]] = []
    done = 0
    while done < most:
        while len(running) < workers and (config := search.ask()) is not None:
            running.append((config, []))
        if not running:
            break
        config, rungs = running[r.integers(len(running))]
        if "rank" in config:
            running.remove((config, rungs))
            search.add_ranking(Contributions(**config["rank"], folds=SHARES, seconds=0.0))
            continue
        rungs.append([RUNGS[len(rungs)], scores(config["params"])[len(rungs)]])
        complete = len(rungs) == len(RUNGS)
        if complete or not search.goes_on(config["stage"], config["number"], *rungs[-1]):
            running.remove((config, rungs))
            predictions = np.full(180, rungs[-1][1], np.float32) if complete else None
            search.add(record_of(config, rungs, complete), predictions)
            done += 1


def rank_rule(score: float, peers: Sequence[float], reduction: int) -> bool:
    """Brute force: sort all scores at the rung, the trial's own last among equals."""
    order = sorted([*((p, 0) for p in peers), (score, 1)])
    return order.index((score, 1)) < max(1, len(order) // reduction)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_part_goes_on(seed: int) -> None:
    r = np.random.default_rng(seed)
    peers = [float(x) for x in r.integers(0, 6, r.integers(0, 15))]
    for reduction in (2, 3):
        for score in range(-1, 7):
            assert (score < limit_of(peers, reduction)) == rank_rule(score, peers, reduction)
        assert limit_of([], reduction) == float("inf")


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_trial_is_judged_by_the_trials_before_it_alone(tmp_path: Path, concurrent: int) -> None:
    """Every record follows from the trials up to `concurrent` before it."""
    search = FamilySearch(job(tmp_path, concurrent=concurrent), ROWS)
    run(search, concurrent)
    assert search.finished
    for stage in (1, 2):
        records = [r for r in search.records if r.stage == stage]
        assert [r.number for r in records] == list(range(8 if stage == 1 else 6))
        for r in records[1 if stage == 2 else 0 :]:
            expected = []
            for progress, score in zip(RUNGS, scores(r.params), strict=True):
                expected.append([progress, score])
                earlier = records[: max(0, r.number - concurrent + 1)]
                before = [s for o in earlier for p, s in o.rungs if p == progress]
                if progress < 300 and not rank_rule(score, before, 2 if (progress, stage) == (10, 1) else 3):
                    break
            assert r.rungs == expected
            assert r.state == ("complete" if len(expected) == 4 else "pruned")
    assert 0 < sum(r.state == "pruned" for r in search.records) < 12


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_workers_nor_a_kill_changes_a_trial(tmp_path: Path, seed: int) -> None:
    whole = FamilySearch(job(tmp_path / "whole", concurrent=3), ROWS)
    run(whole, workers=3)
    assert whole.finished
    for most in (0, 1, 4, 8, 11):
        folder = tmp_path / str(most)
        run(FamilySearch(job(folder, concurrent=3), ROWS), workers=2, seed=seed, most=most)
        again = FamilySearch(job(folder, concurrent=3), ROWS)
        run(again, workers=3, seed=seed + 1)
        assert again.records == whole.records


def test_records_of_another_cluster_are_kept(tmp_path: Path) -> None:
    """With other trials at once the same search goes another way; what is recorded stays."""
    run(FamilySearch(job(tmp_path, concurrent=1, stage1_trials=14), ROWS), workers=1, most=12)
    before = FamilySearch(job(tmp_path, concurrent=1, stage1_trials=14), ROWS).records
    search = FamilySearch(job(tmp_path, concurrent=6, stage1_trials=14), ROWS)
    run(search, workers=6)
    assert search.finished
    assert search.records[:12] == before
    assert len({digest(r.params) for r in search.records if r.stage == 1}) == 14


def test_stage_2_begins_with_the_best_of_stage_1(tmp_path: Path) -> None:
    search = FamilySearch(job(tmp_path), ROWS)
    run(search, workers=1)
    coarse = [r for r in search.records if r.stage == 1]
    best = min((r for r in coarse if r.cv_rmse is not None), key=lambda r: r.cv_rmse or 0.0)
    first = next(r for r in search.records if r.stage == 2)
    assert first.params == {**best.params, "feature_group": "all"}
    assert (first.rungs, first.cv_rmse) == (best.rungs, best.cv_rmse)
    ranked = read_contributions(tmp_path)
    assert ranked is not None
    assert (ranked.params, ranked.rounds) == (best.params, best.rounds)
    assert (first.trial_id, first.seconds) == ("xgboost-stage2-0000", 0.0)
    table = read_predictions(tmp_path / "stage2", first)
    assert set(table["prediction"].to_pylist()) == {np.float32(best.score)}
    assert table["row_id"].to_pylist() == np.concatenate([ROWS.row_ids[s] for _, s in FOLDS]).tolist()
    assert table["fold"].to_pylist() == np.repeat([0, 1, 2], 60).tolist()


def test_the_best_trial_so_far_brings_the_ranking(tmp_path: Path) -> None:
    """Of two that began before the other ended, the worse one's is left; after a kill it is made anew."""
    search = FamilySearch(job(tmp_path, concurrent=2, stage1_trials=3, pruning=False), ROWS)
    first, second = search.ask(), search.ask()
    assert first is not None
    assert second is not None
    assert first["rank_below"] == second["rank_below"] == float("inf")

    def end(config: dict[str, Any], score: float, ranked: bool = True) -> None:
        found = Contributions(config["params"], 1, [{**SHARES[0], "x0": score}] * 3, 0.0) if ranked else None
        done = record_of(config, [[p, score] for p in RUNGS], complete=True)
        search.add(done, np.zeros(180, np.float32), found)

    end(second, 0.9)
    end(first, 0.95)
    kept = read_contributions(tmp_path)
    assert kept is not None
    assert kept.params == second["params"]
    third = search.ask()
    assert third is not None
    assert third["rank_below"] == 0.9
    end(third, 0.99, ranked=False)
    asked = search.ask()
    assert asked is not None
    assert (asked["stage"], asked["rank_below"], len(asked["rankings"])) == (2, 0.0, 3)
    (tmp_path / "contributions.json").unlink()
    again = FamilySearch(job(tmp_path, concurrent=2, stage1_trials=3, pruning=False), ROWS).ask()
    assert again is not None
    assert again["rank"] == {"params": second["params"], "rounds": 1}


def test_the_time_that_is_left_follows_from_the_trials_so_far(tmp_path: Path) -> None:
    search = FamilySearch(job(tmp_path, stage1_trials=8, stage2_trials=6), ROWS)
    assert search.seconds_left == float("inf")
    for seconds in (10.0, 30.0):
        config = search.ask()
        assert config is not None
        search.add(replace(record_of(config, [[10.0, 1.0]], complete=False), seconds=seconds))
    assert search.seconds_left == 20.0 * 12
    search.ask()
    assert search.seconds_left == 20.0 * 11


def test_stage_2_waits_for_the_ranking(tmp_path: Path) -> None:
    for groups in (True, False):
        search = FamilySearch(job(tmp_path / str(groups), stage1_trials=2, feature_groups=groups), ROWS)
        run(search, workers=1, most=2)
        if groups:
            assert search.running == 0
            asked = search.ask()
            assert asked is not None
            assert set(asked) == {"family", "rank"}
            assert (search.running, search.ask()) == (1, None)
            search.add_ranking(Contributions(**asked["rank"], folds=SHARES, seconds=0.0))
        run(search, workers=1)
        assert search.finished
        chosen = {r.params.get("feature_group") for r in search.records if r.stage == 2}
        assert len(chosen) > 1 if groups else chosen == {None}


def test_without_pruning_every_trial_finishes(tmp_path: Path) -> None:
    search = FamilySearch(job(tmp_path, pruning=False, stage2_trials=0), ROWS)
    run(search, workers=1)
    assert [r.state for r in search.records] == 8 * ["complete"]


def test_a_cut_trial_is_told_as_pruned_at_its_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as complete, its score over fewer rows would compete with scores over all of them."""
    studies: list[optuna.Study] = []
    create = optuna.create_study
    monkeypatch.setattr(
        "marketray.tuning.family.create_study", lambda **k: studies.append(create(**k)) or studies[-1]
    )
    space = first_space("ar", max_lags=4, exogenous=("none",))
    search = StageSearch(job(tmp_path, "ar", stage1_trials=9), 1, space, [])
    for outcome in (True, False, True):
        found = search.ask()
        assert found is not None
        rungs = [[100.0, 0.98], [200.0, 0.96], [300.0, 0.97]][: 3 if outcome else 2]
        config = {"family": "ar", "stage": 1, "number": found[0], "params": found[1]}
        search.records[found[0]] = record_of(config, rungs, outcome)
    search.ask()
    whole, cut, *_ = studies[0].trials
    assert (whole.state, whole.value) == (TrialState.COMPLETE, 0.97)
    assert (cut.state, cut.intermediate_values) == (TrialState.PRUNED, {0: 0.98, 1: 0.96})


def test_a_family_waits_for_the_trials_it_follows_from(tmp_path: Path) -> None:
    search = FamilySearch(job(tmp_path, concurrent=2), ROWS)
    first, second = search.ask(), search.ask()
    assert first is not None
    assert second is not None
    assert search.ask() is None
    assert search.running == 2
    search.add(record_of(second, [[10.0, 1.0]], False))
    assert search.ask() is None  # the third follows from the first
    search.add(record_of(first, [[10.0, 1.0]], False))
    assert search.ask() is not None


def test_a_small_space_is_enumerated(tmp_path: Path) -> None:
    search = FamilySearch(job(tmp_path, "ar", max_lags=2, stage1_trials=30, stage2_trials=0), ROWS)
    run(search, workers=1)
    tried = sorted((r.params["lags"], r.params["ridge"]) for r in search.records)
    ridges = [0.0, *(10.0**k for k in range(-6, 3))]
    assert tried == [(lag, ridge) for lag in (1, 2) for ridge in ridges]
    assert search.records[0].params == {"lags": 2, "exogenous": "none", "ridge": 0.0}
    assert (search.wanted, search.finished) == (20, True)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="ar: none of the 4 columns is for this family"):
        space_of(job(tmp_path, "ar"), block(10, lags=0).columns)
    search = FamilySearch(job(tmp_path, stage1_trials=1), ROWS)
    config = search.ask()
    assert config is not None
    with pytest.raises(TuningError, match="xgboost: none of 1 stage-1 trials finished all 3 folds"):
        search.add(record_of(config, [[10.0, 1.0]], False))
