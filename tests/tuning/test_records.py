"""Trial records: whole or absent, in order, and the choice of the best."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketray.errors import TuningError
from marketray.tuning.records import TrialRecord, best_of, read_predictions, read_records, write_record


def record(number: int = 0, cv_rmse: float | None = 1e-3, stage: int = 1) -> TrialRecord:
    complete = cv_rmse is not None
    return TrialRecord(
        trial_id=f"ar-stage{stage}-{number:04d}",
        family="ar",
        stage=stage,
        number=number,
        state="complete" if complete else "pruned",
        params={"lags": 1 + number},
        score=0.9,
        cv_rmse=cv_rmse,
        rounds=1 if complete else None,
        fold_rmse=[1e-3] if complete else [],
        fold_zero_rmse=[1.1e-3] if complete else [],
        fold_rounds=[1] if complete else [],
        rungs=[[100.0, 0.9]],
        seconds=0.1,
        started_at=1.0,
        ended_at=2.0,
        predictions=f"trial_{number:04d}.parquet" if complete else None,
    )


def test_round_trip_with_predictions(tmp_path: Path) -> None:
    r = record()
    write_record(
        tmp_path, r, np.array(["a", "b"]), np.array([0, 1], np.int8), np.array([0.1, 0.2], np.float32)
    )
    write_record(tmp_path, record(1, None))
    assert read_records(tmp_path) == [r, record(1, None)]
    table = read_predictions(tmp_path, r)
    assert table.to_pydict() == {
        "row_id": ["a", "b"],
        "fold": [0, 1],
        "prediction": [np.float32(0.1), np.float32(0.2)],
    }
    assert table.schema.field("prediction").type == pa.float32()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "trial_0000.json",
        "trial_0000.parquet",
        "trial_0001.json",
    ]


def test_best_is_chosen_only_among_complete_trials() -> None:
    trials = [record(0, 2e-3), record(1, None), record(2, 1e-3), record(0, 1e-3, stage=2)]
    assert best_of(trials) == trials[2]  # the earliest of equals; the pruned one's score never counts
    assert best_of([replace(record(1, None), score=0.1)]) is None


def test_refusals(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none") == []
    with pytest.raises(TuningError, match="has no out-of-fold predictions"):
        read_predictions(tmp_path, record(1, None))
    (tmp_path / "trial_0000.json").write_text(json.dumps({"trial_id": "x"}))
    with pytest.raises(TuningError, match="not a readable trial record"):
        read_records(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TuningError, match="cannot be recorded"):
        write_record(tmp_path / "file", record(1, None))
