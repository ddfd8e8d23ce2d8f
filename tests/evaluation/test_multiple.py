"""Tests of many candidates against their definitions, resample by resample, and against simulated luck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap

from marketray.dataset.load import Block
from marketray.errors import DataError, TuningError
from marketray.evaluation.multiple import confidence_set, session_mean_losses, superior_ability
from marketray.evaluation.trials import Trials, read_trials
from marketray.tuning.records import TrialRecord, read_records, write_record
from tests.evaluation.blocks import make_block

SESSIONS, M, BLOCK, REPS = 80, 6, 5, 400
RNG = np.random.default_rng(23)
ZERO = 1 + RNG.gamma(2, 1, SESSIONS)
LOSSES = ZERO[:, None] + RNG.normal(0.02, 0.2, (SESSIONS, M)) * (1 + np.arange(M))
NAMES = [f"m{k}" for k in range(M)]
SEEN = np.sqrt(1 - (2 * BLOCK - 1) / SESSIONS)
"""Share of a mean's standard error that resampled blocks show."""


def resamples(seed: int) -> list[np.ndarray]:
    bootstrap = StationaryBootstrap(BLOCK, np.arange(SESSIONS), seed=seed)
    return [data[0][0] for data in bootstrap.bootstrap(REPS)]


def long_run_variance(x: np.ndarray) -> float:
    """Of the stationary bootstrap's mean, times n (Politis and Romano, 1994, lemma 1)."""
    n, p, z = len(x), 1 / BLOCK, x - x.mean()
    lags = np.array([z[: n - i] @ z[i:] / n for i in range(n)])
    i = np.arange(1, n)
    kernel = (1 - i / n) * (1 - p) ** i + i / n * (1 - p) ** (n - i)
    return float(lags[0] + 2 * kernel @ lags[1:])


def test_session_means_are_those_of_each_session_in_time_order() -> None:
    loss = np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0], [4.0, 40.0]])
    got = session_mean_losses(loss, [30, 10, 10, 20])
    np.testing.assert_allclose(got, [[4, 40], [4, 40], [1, 10]])
    np.testing.assert_allclose(session_mean_losses(loss[:, 0], [30, 10, 10, 20]), [4, 4, 1])


@pytest.mark.parametrize("shift", [-0.05, -0.07, -0.3])
def test_superior_ability_is_the_share_of_resamples_that_do_better(shift: float) -> None:
    losses = LOSSES + shift
    gains = ZERO[:, None] - losses
    gains /= gains.std(axis=0)
    gains += (SEEN - 1) * gains.mean(axis=0)
    mean = gains.mean(axis=0)
    worst = -np.sqrt([long_run_variance(g) * 2 * np.log(np.log(SESSIONS)) / SESSIONS for g in gains.T])
    centres = {
        "p_lower": np.maximum(mean, 0),
        "p_value": np.where(mean >= worst, mean, 0),
        "p_upper": mean,
    }
    stars = [gains[rows].mean(axis=0) for rows in resamples(3)]
    got = superior_ability(losses, ZERO, NAMES, block_sessions=BLOCK, repetitions=REPS, seed=3)
    assert mean.max() > 0
    for name, centre in centres.items():
        assert got[name] == pytest.approx(np.mean([(s - centre).max() > mean.max() for s in stars])), name
    assert got["p_lower"] <= got["p_value"] <= got["p_upper"]
    assert got["best"] == NAMES[int(mean.argmax())]
    rest = {"benchmark": "zero", "candidates": M, "sessions": SESSIONS}
    assert {k: got[k] for k in rest} == rest
    assert (got["block_sessions"], got["repetitions"]) == (BLOCK, REPS)


def test_where_none_beats_zero_there_is_no_evidence() -> None:
    worse = superior_ability(ZERO[:, None] + np.abs(LOSSES), ZERO, NAMES)
    same = superior_ability(np.repeat(ZERO[:, None], M, axis=1), ZERO, NAMES)
    for got in (worse, same):
        assert (got["p_lower"], got["p_value"], got["p_upper"]) == (1, 1, 1)


def test_the_best_of_many_lucky_candidates_is_seldom_called_skilled_and_skill_is_found() -> None:
    rng = np.random.default_rng(5)
    found = np.zeros(2)
    naive = 0
    for k in range(150):
        gains = rng.standard_t(6, (60, 25))
        naive += (gains.mean(axis=0) / gains.std(axis=0) * np.sqrt(60)).max() > 1.645
        for j, skill in enumerate((0.0, 0.7)):
            gains[:, 7] += skill
            got = superior_ability(-gains, np.zeros(60), list(map(str, range(25))), repetitions=200, seed=k)
            found[j] += got["p_value"] < 0.05
    assert naive / 150 > 0.5  # what a test of the best alone would say
    assert found[0] / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert found[1] / 150 > 0.8


def test_resampled_blocks_show_less_than_a_means_variance() -> None:
    rng = np.random.default_rng(8)
    seen = []
    for k in range(150):
        x = rng.standard_normal(SESSIONS)
        draws = [d[0][0].mean() for d in StationaryBootstrap(BLOCK, x, seed=k).bootstrap(100)]
        seen.append(np.mean((np.array(draws) - x.mean()) ** 2) * SESSIONS)
    assert np.mean(seen) == pytest.approx(SEEN**2, abs=0.04)


def test_confidence_set_drops_the_worst_while_a_resample_seldom_is_as_bad() -> None:
    losses = LOSSES + 0.1 * np.arange(M)
    errors = np.array([losses[rows].mean(axis=0) - losses.mean(axis=0) for rows in resamples(4)])
    left, highest, expected = list(range(M)), 0.0, {}
    while len(left) > 1:
        centred = errors[:, left] - errors[:, left].mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=0))
        gap = SEEN * (losses[:, left].mean(axis=0) - losses[:, left].mean()) / spread
        highest = max(highest, float(np.mean((centred / spread).max(axis=1) > gap.max())))
        expected[NAMES[left.pop(int(gap.argmax()))]] = highest
    expected[NAMES[left[0]]] = 1.0
    got = confidence_set(losses, NAMES, level=0.9, block_sessions=BLOCK, repetitions=REPS, seed=4)
    assert got["p_values"] == pytest.approx(expected)
    assert got["included"] == [n for n in NAMES if expected[n] > 0.1]
    assert got["excluded"] == [n for n in NAMES if expected[n] <= 0.1]
    assert 1 < len(got["included"]) < M
    assert got["level"] == 0.9


def test_equal_candidates_share_a_place() -> None:
    twice = np.column_stack([LOSSES, LOSSES[:, 0]])
    got, once = confidence_set(twice, [*NAMES, "again"], seed=1), confidence_set(LOSSES, NAMES, seed=1)
    assert got["p_values"]["again"] == got["p_values"]["m0"]
    assert {n: got["p_values"][n] for n in NAMES} == once["p_values"]
    alone = confidence_set(np.repeat(LOSSES[:, :1], 3, axis=1), ["a", "b", "c"])
    assert alone["p_values"] == {"a": 1, "b": 1, "c": 1}
    assert alone["included"] == ["a", "b", "c"]


@pytest.mark.parametrize("test", ["superior_ability", "confidence_set"])
def test_too_little_to_compare_is_refused(test: str) -> None:
    def call(losses: np.ndarray, names: list[str], block: int = 5) -> None:
        if test == "superior_ability":
            superior_ability(losses, np.zeros(len(losses)), names, block_sessions=block)
        else:
            confidence_set(losses, names, block_sessions=block)

    with pytest.raises(DataError, match=f"{test}: got 19 sessions; required: 20 or more"):
        call(LOSSES[:19], NAMES)
    with pytest.raises(DataError, match=f"{test}: block_sessions=4; required: at least 5"):
        call(LOSSES, NAMES, 4)
    with pytest.raises(DataError, match=rf"losses have shape \({SESSIONS}, {M}\) for 1 names"):
        call(LOSSES, ["a"])
    with pytest.raises(DataError, match="for 0 names"):
        call(LOSSES[:, :0], [])


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"values have shape \(3,\), session \(2,\)"):
        session_mean_losses([1.0, 2.0, 3.0], [1, 2])
    with pytest.raises(DataError, match="1 of 2 values are not finite"):
        session_mean_losses([1.0, float("nan")], [1, 2])


N, DAY = 300, 60
TRUTH = np.random.default_rng(31).normal(size=N) * 1e-3


def rows() -> Block:
    """Five sessions of an hour each."""
    block = make_block(TRUTH)
    return replace(block, session_open_us=block.decision_us // (DAY * 60_000_000))


def record(family: str, stage: int, number: int, *, complete: bool) -> TrialRecord:
    return TrialRecord(
        trial_id=f"{family}-stage{stage}-{number}",
        family=family,
        stage=stage,
        number=number,
        state="complete" if complete else "pruned",
        params={"lags": 10 * stage + number},
        score=1.0,
        cv_rmse=1e-3 if complete else None,
        rounds=1 if complete else None,
        fold_rmse=[],
        fold_zero_rmse=[],
        fold_rounds=[],
        rungs=[[11, 1.0]],
        seconds=1.0,
        started_at=0.0,
        ended_at=1.0,
        predictions=f"trial_{number:04d}.parquet" if complete else None,
    )


def tuned(
    run: Path, key: str, scored: np.ndarray, forecasts: dict[tuple[str, int, int], np.ndarray | None]
) -> None:
    """Write trials by (family, stage, number); None is a pruned one."""
    for (family, stage, number), values in forecasts.items():
        folder = run / "tuning" / key / family / f"stage{stage}"
        made = record(family, stage, number, complete=values is not None)
        fold = np.zeros(len(scored), np.int8)
        predictions = None if values is None else values.astype(np.float32)
        write_record(folder, made, rows().row_ids[scored], fold, predictions)


FORECASTS: dict[tuple[str, int, int], np.ndarray | None] = {
    ("ar", 1, 0): TRUTH * 0.5,
    ("ar", 2, 0): np.zeros(N),
    ("xgboost", 1, 0): -TRUTH,
    ("xgboost", 1, 1): None,
    ("xgboost", 2, 0): np.full(N, 1e-3),
}


def test_trials_of_all_families_and_stages_are_scored_and_all_are_counted(tmp_path: Path) -> None:
    scored = np.arange(N)[::-1][:-DAY]  # the first session has no out-of-fold rows; the order is theirs
    kept = {k: None if v is None else v[scored] for k, v in FORECASTS.items()}
    tuned(tmp_path, "now", scored, kept)
    tuned(tmp_path, "before", scored[:3], {("ar", 1, 0): np.zeros(3), ("ar", 1, 1): None})
    (tmp_path / "tuning" / "notes.txt").write_text("no tuning")
    got = read_trials(tmp_path, "now", rows())
    assert got.names == ("ar-stage1-0", "ar-stage2-0", "xgboost-stage1-0", "xgboost-stage2-0")
    assert (got.counted, got.pruned, got.earlier) == (7, 1, 2)
    assert got.session_open_us.tolist() == [1, 2, 3, 4]
    y = TRUTH.reshape(5, DAY)[1:]
    np.testing.assert_allclose(got.zero, (y**2).mean(axis=1))
    squares = [(0.5 * y) ** 2, y**2, (2 * y) ** 2, (y - 1e-3) ** 2]
    np.testing.assert_allclose(got.losses, np.column_stack([s.mean(axis=1) for s in squares]), rtol=1e-6)
    earned = [np.abs(y), 0 * y, -np.abs(y), y]
    np.testing.assert_allclose(got.returns, np.column_stack([e.sum(axis=1) for e in earned]), atol=1e-12)


def test_a_configuration_that_is_tried_again_is_no_further_candidate(tmp_path: Path) -> None:
    """Stage 2 starts from stage 1's best, whose record it copies; samplers come back to a point too."""
    tuned(tmp_path, "now", np.arange(N), FORECASTS)
    tuned(tmp_path, "before", np.arange(N), FORECASTS)
    once = read_trials(tmp_path, "now", rows())
    for key in ("now", "before"):
        folder = tmp_path / "tuning" / key / "xgboost"
        first = read_records(folder / "stage1")[0]
        pruned = replace(read_records(folder / "stage1")[1], number=2, trial_id="again")
        same = {**first.params, "feature_group": "all"}
        copied = replace(first, stage=2, number=3, params=same, predictions="trial_0003.parquet")
        fold = np.zeros(N, np.int8)
        predictions = FORECASTS["xgboost", 1, 0].astype(np.float32)  # type: ignore[union-attr]
        write_record(folder / "stage2", copied, rows().row_ids, fold, predictions)
        write_record(folder / "stage1", pruned)
    again = read_trials(tmp_path, "now", rows())
    assert (once.counted, once.pruned, once.earlier) == (10, 1, 5)
    assert (again.counts, again.names) == (once.counts, once.names)
    np.testing.assert_array_equal(again.losses, once.losses)
    assert len(again.records) == len(once.records) + 2
    other_group = replace(copied, number=4, params={**copied.params, "feature_group": "top 50 %"})
    write_record(
        folder.parents[1] / "now" / "xgboost" / "stage2", other_group, rows().row_ids, fold, predictions
    )
    assert read_trials(tmp_path, "now", rows()).counted == 11


def test_a_record_of_an_earlier_tuning_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    tuned(tmp_path, "now", np.arange(N), {("ar", 1, 0): TRUTH})
    tuned(tmp_path, "before", np.arange(N), {("ar", 1, 0): TRUTH})
    (tmp_path / "tuning" / "before" / "ar" / "stage1" / "trial_0000.json").write_text("[]")
    with pytest.raises(TuningError, match=r"trial_0000.json: not a readable trial record \(TypeError"):
        read_trials(tmp_path, "now", rows())


def test_direction_trials_are_scored_as_probabilities(tmp_path: Path) -> None:
    probability = 0.5 + 0.3 * np.sign(TRUTH)
    tuned(tmp_path, "now", np.arange(N), {("xgboost", 1, 0): probability})
    got: Trials = read_trials(tmp_path, "now", rows(), task="direction")
    np.testing.assert_allclose(got.zero, 0.25)
    np.testing.assert_allclose(got.losses, 0.2**2, rtol=1e-6)
    np.testing.assert_allclose(got.returns[:, 0], np.abs(TRUTH).reshape(5, DAY).sum(axis=1))


def test_trials_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="none of 0 trials is complete"):
        read_trials(tmp_path, "now", rows())
    tuned(tmp_path, "now", np.arange(N), {("ar", 1, 0): TRUTH})
    with pytest.raises(TuningError, match="trial ar-stage1-0: 10 of 300 rows are not among the block's"):
        read_trials(tmp_path, "now", rows().take(slice(10, None)))
    tuned(tmp_path, "now", np.arange(N)[::-1], {("ar", 2, 0): TRUTH})
    with pytest.raises(TuningError, match="trial ar-stage2-0 was scored on other rows than the rest"):
        read_trials(tmp_path, "now", rows())
