"""The time of a tuning: of a run that began anew, and of one that went on with another's records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from marketray.errors import TuningError
from marketray.tuning.actor import FamilyJob
from marketray.tuning.contributions import Contributions, write_contributions
from marketray.tuning.records import TrialRecord, write_record
from marketray.tuning.result import TuneResult, stored, summary
from marketray.tuning.trial import Budget

FAMILIES = ("ar", "xgboost")


def jobs(folder: Path) -> list[FamilyJob]:
    return [FamilyJob(family, str(folder / family), (), Budget(seed=1), 3, 0) for family in FAMILIES]


def trial(family: str, number: int, started_at: float, seconds: float) -> TrialRecord:
    return TrialRecord(
        trial_id=f"{family}-stage1-{number:04d}",
        family=family,
        stage=1,
        number=number,
        state="complete",
        params={"lags": number},
        score=1.0,
        cv_rmse=1e-3,
        rounds=1,
        fold_rmse=[],
        fold_zero_rmse=[],
        fold_rounds=[],
        rungs=[],
        seconds=seconds,
        started_at=started_at,
        ended_at=started_at + seconds,
        predictions=None,
    )


FIRST = [trial(family, 0, 1_000.0, 30.0) for family in FAMILIES]
LATER = [trial("ar", 1, 9_000.0, 4.0), trial("ar", 2, 9_004.0, 4.0), trial("xgboost", 1, 9_001.0, 10.0)]
"""Begun hours later, when the run had been killed and was started again."""


def told(folder: Path, records: list[TrialRecord], seconds: float, before: set[str]) -> TuneResult:
    by_family = {f: [r for r in records if r.family == f] for f in FAMILIES}
    return summary(jobs(folder), by_family, 2, folder, "key", "regression", seconds, before)


def test_the_overhead_of_a_run_is_over_what_it_computed(tmp_path: Path) -> None:
    """Two at once: 78 s of trials and 2 s of ranking could have taken 40 s."""
    write_contributions(tmp_path / "ar", Contributions({}, 1, [{"x": 1.0}], seconds=2.0))
    done = told(tmp_path, FIRST + LATER, 50.0, set())
    assert done.overhead_share == pytest.approx((50 - 40) / 40)
    assert (done.trials, done.resumed) == (5, 0)
    assert done.overlap_share == 1.0


def test_a_resumed_run_tells_its_own_time(tmp_path: Path) -> None:
    """Its 18 s of trials could have taken 9 s; what the killed run had computed is no part of it."""
    write_contributions(tmp_path / "ar", Contributions({}, 1, [{"x": 1.0}], seconds=2.0))
    for record in FIRST:
        write_record(tmp_path / record.family / "stage1", record)
    before = stored(jobs(tmp_path), tmp_path)
    assert before == {"ar-stage1-0000", "xgboost-stage1-0000", "ar"}
    done = told(tmp_path, FIRST + LATER, 12.0, before)
    assert done.overhead_share == pytest.approx((12 - 9) / 9)
    assert (done.trials, done.resumed, done.seconds) == (5, 2, 12.0)
    assert done.overlap_share == pytest.approx(7 / 8)  # 9,001 to 9,008 of the 8 s from 9,000


def test_a_run_that_had_nothing_to_compute_has_no_shares(tmp_path: Path) -> None:
    done = told(tmp_path, FIRST + LATER, 1.0, {r.trial_id for r in FIRST + LATER})
    assert (done.overhead_share, done.overlap_share, done.resumed) == (None, None, 5)
    alone = told(tmp_path, FIRST + LATER, 9.0, {r.trial_id for r in FIRST + LATER[:2]})
    assert alone.overlap_share is None  # only xgboost had a trial left
    assert alone.overhead_share == pytest.approx((9 - 5) / 5)


def test_a_family_without_a_complete_trial_is_refused(tmp_path: Path) -> None:
    pruned = [replace(r, state="pruned", cv_rmse=None, rounds=None) for r in FIRST]
    with pytest.raises(TuningError, match="ar: none of 1 trials finished all 0 folds"):
        told(tmp_path, pruned, 1.0, set())
