"""The whole stage on a local Ray: concurrency, the best trial, resuming after kill -9, bookkeeping."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from marketray.dataset.load import Block
from marketray.errors import MarketrayError, SettingsError, TuningError
from marketray.features.fits import PercentileRank
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.models.contribution import group_names
from marketray.settings import LabelSettings, Settings, TuningSettings
from marketray.tuning import stage
from marketray.tuning.contributions import read_contributions
from marketray.tuning.records import best_of, read_records
from marketray.tuning.result import TuneResult, overlap_share
from marketray.tuning.stage import family_jobs, run_tune, tune_block
from marketray.tuning.trial import Budget, FoldCache, run_trial
from tests.tuning.rows import block, folds

SMALL = {"stage1_trials": 3, "stage2_trials": 2, "max_rounds": 60, "patience": 2, "ar_max_lags": 4}


def tuning(**more: object) -> TuningSettings:
    return TuningSettings(**{**SMALL, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("parallel", [1, 5])
def test_what_a_trial_knows_of_others_depends_on_the_settings_not_on_the_cluster(parallel: int) -> None:
    jobs = family_jobs([], tuning(parallel_trials=parallel), Path("/nowhere"), "regression")
    assert [job.concurrent for job in jobs] == [parallel] * len(jobs)


def test_trials_share_the_gpus_where_they_are_to_fit_on_one() -> None:
    assert stage.trial_resources(tuning(), 4, {"CPU": 4.0, "GPU": 1.0}) == {"cpu": 0.8}
    cuda = tuning(device="cuda")
    assert family_jobs([], cuda, Path("/nowhere"), "regression")[0].budget.device == "cuda"
    assert stage.trial_resources(cuda, 4, {"CPU": 4.0, "GPU": 1.0}) == {"cpu": 0.8, "gpu": 0.25}
    assert stage.trial_resources(cuda, 2, {"CPU": 2.0, "GPU": 8.0}) == {"cpu": 0.8, "gpu": 1.0}
    with pytest.raises(
        SettingsError, match=r"tuning\.device='cuda', but the cluster has no GPU that Ray knows"
    ):
        stage.trial_resources(cuda, 2, {"CPU": 2.0})


def test_overlap_share_by_hand() -> None:
    assert overlap_share([(0, 10), (5, 20)]) == 0.5
    assert overlap_share([(0, 10), (11, 20)]) == 0.0
    assert overlap_share([(0, 10), (2, 4), (3, 9)]) == 0.5
    assert overlap_share([(0, 10)]) == 1.0


ROWS = 12_000
FITTED = (FittedFeature("x1_rank", "g", "x1", PercentileRank(), "fraction"),)


def put_dataset(patch: pytest.MonkeyPatch, rows: Block, cut: list[tuple[slice, slice]]) -> None:
    """These rows in place of the lake's."""
    from marketray.dataset import load

    sizes = {"train": 3 * len(rows) // 4, "validation": len(rows) - 3 * len(rows) // 4}
    blocks = {name: SimpleNamespace(rows=size) for name, size in sizes.items()}
    detail = {"key": "d", "catalog_hash": "c"}
    split = SimpleNamespace(folds=cut, blocks=blocks, detail=detail, fitted=FITTED)
    patch.setattr(load, "dataset_content", lambda _: "content")
    patch.setattr(load, "load_split", lambda _: split)
    patch.setattr(load, "load_blocks", lambda _: rows)


@pytest.fixture(scope="module")
def run(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The stage over all three families, enough work in each that start-up does not decide the overlap.

    The dataset is in memory in place of the lake's, and MLflow a list of the trials that it is told.
    """
    from marketray import tracking

    logged: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        put_dataset(patch, block(ROWS, lags=60, features=6), folds(ROWS))
        patch.setattr(tracking, "open_parent_run", lambda *a: "parent")
        patch.setattr(tracking, "close_parent_run", lambda *a: None)
        patch.setattr(
            tracking, "log_trials", lambda s, p, records: logged.extend(r["trial_id"] for r in records)
        )
        home = tmp_path_factory.mktemp("tuned")
        settings = Settings(home=home, tuning=tuning(stage1_trials=6, stage2_trials=2, ar_max_lags=60))
        yield SimpleNamespace(settings=settings, result=run_tune(settings), logged=logged)


@pytest.fixture(scope="module")
def tuned(run: SimpleNamespace) -> TuneResult:
    result: TuneResult = run.result
    return result


def test_families_run_at_the_same_time(tuned: TuneResult, tmp_path: Path) -> None:
    """Families one after another never overlap; on a busy machine a slow start can hide that they do."""
    shares = [tuned.overlap_share or 0.0]
    settings = tuning(stage1_trials=8, stage2_trials=0, ar_max_lags=60)
    for attempt in range(3):
        if shares[-1] >= 0.5:
            break
        rows = 3 * ROWS
        again = tune_block(block(rows, lags=60, features=6), folds(rows), settings, tmp_path / str(attempt))
        shares.append(again.overlap_share or 0.0)
    assert max(shares) >= 0.5


def test_every_family_has_its_trials_and_a_best(tuned: TuneResult) -> None:
    assert set(tuned.families) == {"xgboost", "lightgbm", "ar"}
    assert tuned.trials == 3 * 8
    assert tuned.seconds > 0
    for family, best in tuned.families.items():
        records = [r for s in (1, 2) for r in read_records(Path(tuned.folder) / family / f"stage{s}")]
        chosen = best_of(records)
        assert chosen is not None
        assert (best.trial_id, best.params, best.cv_rmse) == (chosen.trial_id, chosen.params, chosen.cv_rmse)
        assert best.n_complete + best.n_pruned == best.n_trials == 8
        assert best.enumerated == []
        # The fine stage begins with the coarse stage's best, and its known score is not computed again.
        coarse = best_of(r for r in records if r.stage == 1)
        again = next(r for r in records if r.stage == 2 and r.number == 0)
        assert coarse is not None
        ranked = read_contributions(Path(tuned.folder) / family)
        assert ranked is not None
        choice = family != "ar" and len(group_names(ranked.rankings)) > 1
        assert again.params == {**coarse.params, **({"feature_group": "all"} if choice else {})}
        assert (again.cv_rmse, again.rungs) == (coarse.cv_rmse, coarse.rungs)
        assert again.seconds < 0.1
    assert sum(b.n_pruned for b in tuned.families.values()) > 0
    assert max(b.cv_score for b in tuned.families.values()) < 0.99  # the planted effect is found


def test_the_best_trial_can_be_computed_again(tuned: TuneResult) -> None:
    rows, cut = block(ROWS, lags=60, features=6), folds(ROWS)
    for family, best in tuned.families.items():
        ranked = read_contributions(Path(tuned.folder) / family)
        assert ranked is not None
        budget = Budget(seed=42, patience=2)
        cache = FoldCache(get_family(family), rows, cut, budget, FITTED, ranked.rankings)
        *_, last = run_trial(cache, best.params)
        assert best.cv_rmse == pytest.approx(np.mean(last.fold_rmse), rel=1e-9)
        assert best.rounds == max(1, round(np.mean(last.fold_rounds)))
        table = pq.read_table(best.predictions)
        np.testing.assert_array_equal(table["prediction"].to_numpy(), last.predictions)
        assert table["row_id"].to_pylist() == np.concatenate([rows.row_ids[s] for _, s in cut]).tolist()
        assert np.unique(table["fold"].to_numpy()).tolist() == [0, 1, 2]


def test_a_finished_tuning_runs_no_trial_again(run: SimpleNamespace) -> None:
    folder = Path(run.result.folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("trial_*")}
    rows = block(ROWS, lags=60, features=6)
    again = tune_block(rows, folds(ROWS), run.settings.tuning, folder, key=run.result.tuning_key)
    assert again.families == run.result.families
    assert (again.resumed, again.overhead_share) == (again.trials, None)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("trial_*")} == before


def test_the_stage_stores_its_result_and_tells_mlflow_every_trial_once(run: SimpleNamespace) -> None:
    result, settings = run.result, run.settings
    wanted = [f"{f}-stage{s}-{k:04d}" for f in result.families for s, n in ((1, 6), (2, 2)) for k in range(n)]
    assert sorted(run.logged) == sorted(wanted)
    stored = json.loads((settings.run_path / "tuning.json").read_text())
    assert stored["parent_run_id"] == "parent"
    assert stored["families"]["ar"]["params"] == result.families["ar"].params
    assert Path(result.folder) == settings.run_path / "tuning" / result.tuning_key
    assert not result.skipped
    again = run_tune(settings)
    assert again.skipped
    assert again.families == result.families
    assert len(run.logged) == len(wanted)
    path = Path(result.folder) / "result.json"
    text = path.read_text()
    path.write_text("{")
    with pytest.raises(TuningError, match="not a readable tuning result"):
        run_tune(settings)
    path.write_text(text)


def test_a_small_space_is_enumerated(
    ray_local: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tuning(families=("ar",), stage1_trials=30, stage2_trials=0, ar_max_lags=1, pruning=False)
    with caplog.at_level(logging.INFO, "marketray.tuning"):
        result = tune_block(block(), folds(), settings, tmp_path)
    best = result.families["ar"]
    assert (best.n_trials, best.enumerated) == (10, [1])  # one lag, no exogenous columns, ten ridges
    params = [r.params["ridge"] for r in read_records(tmp_path / "ar" / "stage1")]
    assert sorted(params) == [0.0, *(10.0**k for k in range(-6, 3))]
    assert "the whole space was tried" in caplog.text
    assert "ar stage 1: 10 of 30 trials" in caplog.text


def test_direction_leaves_the_autoregression_out(ray_local: None, tmp_path: Path) -> None:
    settings = tuning(families=("ar", "lightgbm"), stage1_trials=1, stage2_trials=0, max_rounds=20)
    result = tune_block(block(), folds(), settings, tmp_path, task="direction")
    assert set(result.families) == {"lightgbm"}
    with pytest.raises(TuningError, match="none of them has task='direction'"):
        tune_block(block(), folds(), tuning(families=("ar",)), tmp_path, task="direction")


def test_rows_without_the_family_s_columns_are_refused(ray_local: None, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="ar: none of the 4 columns is for this family"):
        tune_block(block(lags=0), folds(), tuning(families=("ar",)), tmp_path)


def test_a_failing_trial_is_told_in_its_own_words(ray_local: None, tmp_path: Path) -> None:
    rows = block()
    rows.values[5, 0] = np.nan
    settings = tuning(families=("ar",), stage1_trials=1, stage2_trials=0)
    with pytest.raises(TuningError, match=r"tune: 1 trials failed; the first: ar: \['return_1_lag_0'\]"):
        tune_block(rows, folds(), settings, tmp_path)
    assert read_records(tmp_path / "ar" / "stage1") == []


_KILLED = """
import sys, json
from pathlib import Path
import ray
from marketray.settings import TuningSettings
from marketray.tuning.stage import tune_block
from tests.tuning.rows import block, folds

if __name__ == "__main__":
    ray.init(address=sys.argv[3], log_to_driver=False)
    settings = TuningSettings(**json.loads(sys.argv[2]))
    tune_block(block(4_000), folds(4_000), settings, Path(sys.argv[1]))
"""


def test_killed_and_started_again_repeats_no_trial(ray_local: None, tmp_path: Path) -> None:
    import ray

    values = {"families": ["xgboost"], "stage1_trials": 6, "stage2_trials": 2, "max_rounds": 2_000}
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    folder = tmp_path / "records"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    address = ray.get_runtime_context().gcs_address
    free = ray.available_resources()["CPU"]
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), json.dumps(values), address],
        env=environment,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.rglob("trial_*.json"))) < 3:
            assert process.poll() is None, "the tuning ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 120
    while (now := ray.available_resources().get("CPU", 0)) < free:  # Ray notices that the driver is gone
        assert time.monotonic() < deadline, f"{now} of {free} CPUs came back"
        time.sleep(0.1)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("trial_*.json")}
    assert 3 <= len(before) < 8
    result = tune_block(block(4_000), folds(4_000), TuningSettings(**values), folder)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    assert (result.families["xgboost"].n_trials, result.resumed) == (8, len(before))
    records = [r for s in (1, 2) for r in read_records(folder / "xgboost" / f"stage{s}")]
    assert [r.number for r in records] == [*range(6), *range(2)]
    assert len({json.dumps(r.params, sort_keys=True) for r in records if r.stage == 1}) == 6


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small dataset in memory."""
    put_dataset(monkeypatch, block(), folds())


def test_the_key_follows_rows_settings_and_task(home: Path, dataset: None) -> None:
    base = Settings(home=home)
    keys = {
        stage.tuning_key(s)
        for s in (
            base,
            Settings(home=home, tuning=tuning()),
            Settings(home=home, labels=LabelSettings(task="direction")),
        )
    }
    assert len(keys) == 3
    assert stage.tuning_key(Settings(home=home, name="other")) == stage.tuning_key(base)


def test_folds_that_leave_out_validation_rows_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dataset(monkeypatch, block(), folds()[-1:])
    with pytest.raises(SettingsError, match="the folds score 300 rows; required: all 500 validation rows"):
        run_tune(Settings(home=home))


def test_an_unreachable_tracking_server_ends_the_run(
    ray_local: None, home: Path, dataset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marketray import tracking
    from marketray.errors import RegistryError

    def refuse(*_: object) -> str:
        msg = "tracking.uri cannot be reached"
        raise RegistryError(msg)

    monkeypatch.setattr(tracking, "open_parent_run", refuse)
    with pytest.raises(MarketrayError, match=r"tracking\.uri cannot be reached"):
        run_tune(Settings(home=home, tuning=tuning(families=("ar",))))
