"""Walk-forward: windows against a loop, fits that see nothing later, forecasts that survive a kill."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from marketray.dataset.load import VAULT, Block, load_blocks, load_split
from marketray.errors import DataError, ModelError, SettingsError, TuningError
from marketray.evaluation import walkforward_stage
from marketray.evaluation.backtest import backtest_section
from marketray.evaluation.candidates import Candidate
from marketray.evaluation.prices import read_bars
from marketray.evaluation.walkforward import Window, forecast_window, plan_windows
from marketray.evaluation.walkforward_stage import run_backtest, walk_forward
from marketray.lake import Lake
from marketray.settings import Settings
from marketray.tuning.stage import tuning_key
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars
from tests.evaluation.test_stage import write_tuning

MINUTE = 60_000_000
DAY = 1440 * MINUTE
MEAN = Candidate("training_mean", {}, 1, 1e-3, "t", Path("none"))
AR = Candidate("ar", {"lags": 3}, 1, 1e-3, "t", Path("none"))


def rows(sessions: int = 12, *, horizon: int = 30, seed: int = 0) -> Block:
    """Sessions of 80 to 120 minutes a day apart, with labels that stay in their session."""
    rng = np.random.default_rng(seed)
    decision, opened, ended = [], [], []
    for day in range(sessions):
        n = int(rng.integers(80, 120))
        times = day * DAY + np.arange(1, n + 1) * MINUTE
        decision.append(times[:-horizon])
        opened.append(np.full(n - horizon, day * DAY))
        ended.append(times[:-horizon] + horizon * MINUTE)
    decisions = np.concatenate(decision)
    n = len(decisions)
    names = tuple(f"return_1_lag_{k}" for k in range(4))
    values = rng.normal(0, 1e-3, (n, 4)).astype(np.float32)
    ids = np.array([f"T@{k:06d}" for k in range(n)])
    y = 0.2 * values[:, 0].astype(float) + rng.normal(0, 1e-3, n)
    end, start = np.concatenate(ended), np.concatenate(opened)
    return Block(ids, decisions, start, end, y, np.full(n, 100.0), names, values)


def plan(block: Block, **options: Any) -> list[Window]:
    chosen = {"mode": "expanding", "refit_sessions": 2, **options}
    return plan_windows(block.decision_us, block.label_end_us, block.session_open_us, **chosen)


@pytest.mark.parametrize("mode", ["expanding", "rolling"])
def test_windows_are_those_of_a_loop_over_sessions(mode: str) -> None:
    block = rows()
    windows = plan(block, mode=mode, refit_sessions=3, train_sessions=4)
    day = block.decision_us // DAY
    found = []
    for first in range(4, 12, 3):
        scored = np.flatnonzero((day >= first) & (day < first + 3))
        begins = 0 if mode == "expanding" else first - 4
        past = np.flatnonzero((day >= begins) & (day < first))
        free = past[block.label_end_us[past] <= block.decision_us[scored[0]]]
        per_session = int(np.median(np.bincount(day)))
        embargo = min(per_session, int(np.ceil(0.01 * len(past))))
        found.append((int(past[0]), int(free[-1]) + 1 - embargo, int(scored[0]), int(scored[-1]) + 1))
    assert [(w.fit_start, w.fit_stop, w.start, w.stop) for w in windows] == found
    assert [w.number for w in windows] == [0, 1, 2]
    assert windows[-1].stop == len(block)


def test_labels_that_reach_into_the_window_are_purged() -> None:
    block = rows()
    first = plan(block, train_sessions=6)[0]
    late = np.where(np.arange(len(block)) >= first.start - 25, block.label_end_us + DAY, block.label_end_us)
    purged = plan(replace(block, label_end_us=late), train_sessions=6)[0]
    assert purged.fit_stop < first.start - 25
    assert late[: purged.fit_stop].max() <= block.decision_us[first.start]


def test_a_third_of_the_sessions_comes_before_the_first_window() -> None:
    block = rows()
    assert plan(block)[0] == plan(block, train_sessions=4)[0]
    with pytest.raises(DataError, match="train_sessions=12 of 12 sessions; required: at least 1, not all"):
        plan(block, train_sessions=12)
    with pytest.raises(DataError, match="train_sessions=0 of 2 sessions"):
        plan(rows(2))
    endless = replace(block, label_end_us=np.full(len(block), 100 * DAY))
    with pytest.raises(DataError, match="no row is left to fit window 0 on, of .* before it"):
        plan(endless)


def test_a_window_is_forecast_from_its_own_past() -> None:
    block = rows()
    for window in plan(block, mode="rolling", train_sessions=3):
        found = forecast_window(window, block, MEAN, task="regression", seed=0)
        expected = np.full(window.stop - window.start, block.y[window.fit_start : window.fit_stop].mean())
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nothing_after_the_fit_but_its_own_features_changes_a_forecast() -> None:
    block, noise = rows(), np.random.default_rng(1)
    window = plan(block)[1]
    before = forecast_window(window, block, AR, task="regression", seed=0)
    y, values = block.y.copy(), block.values.copy()
    y[window.fit_stop :] = noise.normal(size=len(y) - window.fit_stop)
    outside = np.r_[window.fit_stop : window.start, window.stop : len(block)]
    values[outside] = noise.normal(size=(len(outside), 4))
    changed = replace(block, y=y, values=values)
    np.testing.assert_array_equal(forecast_window(window, changed, AR, task="regression", seed=0), before)
    values[window.start] = 0.5
    again = forecast_window(window, replace(changed, values=values), AR, task="regression", seed=0)
    assert again[0] != before[0]
    np.testing.assert_array_equal(again[1:], before[1:])


def test_a_terminal_shows_a_bar_that_begins_where_the_last_run_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(walkforward_stage, "Console", lambda stderr: drawn)
    with walkforward_stage._progress(3, 1) as advance:
        advance()
        advance()
    text = drawn.file.getvalue()
    assert "walk-forward" in text
    assert "3/3" in text


@pytest.fixture(scope="module")
def prepared(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run up to its tuning, made once."""
    from marketray.dataset.stage import run_dataset

    rules = {"spread_bps": 0.5, "threshold_return": 0.0, "refit_sessions": 4}
    settings = small_settings(tmp_path_factory.mktemp("prepared"), backtest=rules)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    write_tuning(settings)
    return settings


@pytest.fixture
def tuned(prepared: Settings, tmp_path: Path) -> Settings:
    """A copy of the run for one test."""
    shutil.copytree(prepared.home_path, tmp_path / "home")
    return prepared.model_copy(update={"home": tmp_path / "home"})


def walking(settings: Settings, mode: str = "expanding", **rules: Any) -> Settings:
    changed = settings.backtest.model_copy(update={"walk_forward": mode, **rules})
    return settings.model_copy(update={"backtest": changed})


def files(settings: Settings) -> dict[str, bytes]:
    folder = settings.run_path / "walkforward"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("part.parquet")}


def test_a_killed_walk_forward_goes_on_and_ends_as_an_undisturbed_one(
    tuned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = walking(tuned)
    block = load_blocks(settings, ("train", "validation", "test"))
    put, kept = walkforward_stage._Store.put, []

    def dies(self: Any, window: Window, prediction: np.ndarray) -> None:
        if len(kept) == 3:
            raise KeyboardInterrupt
        put(self, window, prediction)
        kept.append(window)

    monkeypatch.setattr(walkforward_stage._Store, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        walk_forward(settings, block, AR)
    stored = files(settings)
    assert len(stored) == 3
    monkeypatch.undo()

    walked = walk_forward(settings, block, AR)
    assert (walked.windows, walked.fitted) == (9, 6)
    whole = files(settings)
    assert len(whole) == 9
    assert whole.items() > stored.items()
    windows = plan(block, refit_sessions=4)
    assert len(walked.prediction) == len(block) - windows[0].start
    by_hand = np.concatenate(
        [forecast_window(w, block, AR, task="regression", seed=tuned.tuning.seed) for w in windows]
    )
    np.testing.assert_array_equal(walked.prediction, by_hand)

    Lake(str(settings.run_path)).delete("walkforward")
    Lake(settings.lake_uri).delete(VAULT)  # law 6: out-of-time rows are not looked at
    undisturbed = walk_forward(settings, block, AR)
    assert undisturbed.fitted == 9
    assert files(settings) == whole
    assert walk_forward(settings, block, AR).fitted == 0

    # other parameters are other forecasts; a plan with windows in common shares them
    assert walk_forward(settings, block, replace(AR, params={"lags": 2})).fitted == 9
    rolling = walk_forward(walking(tuned, "rolling"), block, AR)
    assert (rolling.windows, rolling.fitted) == (9, 8)


def test_a_fit_that_is_refused_says_why(tuned: Settings) -> None:
    block = load_blocks(tuned, ("train", "validation", "test"))
    with pytest.raises(ModelError, match="unknown parameters \\['depth'\\]"):
        walk_forward(walking(tuned), block, replace(AR, params={"depth": 2}))
    assert files(tuned) == {}


def test_the_walk_forward_is_traded_as_a_whole_and_apart_from_the_tuned_rows(
    tuned: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = walking(tuned, "rolling", train_sessions=20)
    with caplog.at_level("INFO", "marketray"):
        done = run_backtest(settings)
    assert (done.mode, done.windows, done.fitted) == ("rolling", 9, 9)
    assert "backtest: 9 of 9 windows are fitted" in caplog.text
    assert list(done.periods) == ["all", "train_validation", "test"]
    split = load_split(settings)
    test = split.blocks["test"]
    assert done.periods["test"]["first_decision_at"] == test.first_decision_at
    assert done.periods["all"]["last_decision_at"] == test.last_decision_at
    assert done.periods["test"]["decisions"] == test.rows == done.skill["test"]["n"]
    assert done.skill["all"]["n"] == done.periods["all"]["decisions"]

    # again from the stored forecasts
    block = load_blocks(settings, ("train", "validation", "test"))
    tables = [pa.parquet.read_table(p) for p in (settings.run_path / "walkforward").rglob("part.parquet")]
    together = pa.concat_tables(tables).sort_by("decision_at")
    decisions = together["decision_at"].cast(pa.int64()).to_numpy()
    np.testing.assert_array_equal(decisions, block.decision_us[-len(decisions) :])
    prediction = together["prediction"].to_numpy()
    bars = read_bars(settings, int(decisions[0]), int(decisions[-1]))
    again = backtest_section(settings, bars, {"all": (decisions, prediction)})
    assert done.periods["all"] == again["periods"]["all"]
    error = block.y[-test.rows :] - prediction[-test.rows :]
    assert done.skill["test"]["rmse_pct"] == pytest.approx(100 * np.sqrt(np.mean(error**2)), rel=1e-12)
    document = json.loads(Path(done.document).read_text())
    assert document["curve"] == again["curve"]
    assert document["periods"] == done.periods
    assert document["settings"]["backtest"]["train_sessions"] == 20


def test_without_a_walk_forward_the_selected_model_is_traded_on_test(tuned: Settings) -> None:
    done = run_backtest(tuned)
    assert (done.mode, done.windows, list(done.periods)) == ("selected", 0, ["test"])
    assert done.periods["test"]["decisions"] == load_split(tuned).blocks["test"].rows
    assert done.family == json.loads((tuned.run_path / "ranking.json").read_text())["order"][0]


def test_the_family_of_a_walk_forward_is_chosen_without_the_test_rows(
    tuned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tuned.run_path / "tuning.json"
    result = json.loads(path.read_text())
    result["families"]["ar"]["cv_rmse"] = 1e-4
    path.write_text(json.dumps(result))
    monkeypatch.setattr(walkforward_stage, "rank_candidates", lambda _: pytest.fail("ranked on test"))
    done = run_backtest(walking(tuned, refit_sessions=20))
    assert (done.family, done.chosen_by[:16]) == ("ar", "smallest cv_rmse")
    assert json.loads(Path(done.document).read_text())["chosen_by"] == done.chosen_by


def test_a_walk_forward_of_another_tuning_is_refused(tuned: Settings) -> None:
    path = tuned.run_path / "tuning.json"
    path.write_text(path.read_text().replace(tuning_key(tuned), "0" * 32))
    with pytest.raises(TuningError, match=r"tuning_key=0+; required: \w+, of the present dataset"):
        run_backtest(walking(tuned))


def test_unknown_costs_are_refused_before_anything_is_fitted(
    tuned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = walking(tuned, spread_bps=None)
    monkeypatch.setattr(walkforward_stage, "connect", lambda _: pytest.fail("Ray was started"))
    with pytest.raises(SettingsError, match="backtest.spread_bps is empty"):
        run_backtest(settings)
    assert not (settings.run_path / "ranking.json").exists()
    assert files(settings) == {}


def test_a_direction_model_is_traded_by_its_probability(tuned: Settings) -> None:
    labels = tuned.labels.model_copy(update={"task": "direction"})
    rules = tuned.backtest.model_copy(update={"threshold_probability": 0.0})
    settings = tuned.model_copy(update={"labels": labels, "backtest": rules})
    write_tuning(settings)
    done = run_backtest(settings)
    assert done.assumptions["threshold"] == {"unit": "probability", "value": 0.0}
    shares = done.periods["test"]["signals"] / done.periods["test"]["decisions"]
    assert shares > 0.9
    assert 0.3 < done.skill["test"]["hit_rate"]["rate"] < 0.7
