"""Records of finished trials: one JSON file each, and the out-of-fold predictions of complete ones.

``<folder>/<family>/stage1/trial_0003.json`` appears whole or not at all, after its predictions
(``trial_0003.parquet``: row_id, fold, prediction as float32). A tuning that was killed starts again from
these files and repeats no trial that has one.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from marketray.errors import TuningError
from marketray.models.contribution import ALL, FEATURE_GROUP

__all__ = [
    "TrialRecord",
    "best_of",
    "configuration",
    "read_predictions",
    "read_records",
    "write_json",
    "write_record",
]


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes
    ----------
    trial_id:
        ``<family>-stage<stage>-<number>``, unique in a tuning.
    state:
        ``complete``: all folds were scored. ``pruned``: the scheduler stopped it at a rung.
    score:
        Last reported mean RMSE / zero RMSE; only comparable between trials of equal progress.
    cv_rmse:
        Mean RMSE over the folds, a fraction; None unless complete.
    rounds:
        Mean best boosting rounds over the folds, rounded; None unless complete.
    rungs:
        (progress, score) of every report.
    seconds:
        Time spent computing.
    started_at, ended_at:
        Seconds since the epoch, UTC.
    predictions:
        File name of the out-of-fold predictions beside this record; None unless complete.
    """

    trial_id: str
    family: str
    stage: int
    number: int
    state: Literal["complete", "pruned"]
    params: dict[str, Any]
    score: float
    cv_rmse: float | None
    rounds: int | None
    fold_rmse: list[float]
    fold_zero_rmse: list[float]
    fold_rounds: list[int]
    rungs: list[list[float]]
    seconds: float
    started_at: float
    ended_at: float
    predictions: str | None


def configuration(family: str, params: Mapping[str, Any]) -> str:
    """What a trial tries, as text: equal for two trials of the same model.

    Stage 2 repeats the best trial of stage 1, and may name there that no column is left out.
    """
    own = {name: value for name, value in params.items() if (name, value) != (FEATURE_GROUP, ALL)}
    return json.dumps([family, own], sort_keys=True)


def write_json(path: Path, value: Any) -> None:
    """Store JSON at `path`, whole or not at all."""
    _replace(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_record(
    folder: Path,
    record: TrialRecord,
    row_ids: npt.NDArray[np.str_] | None = None,
    fold: npt.NDArray[np.int8] | None = None,
    predictions: npt.NDArray[np.float32] | None = None,
) -> None:
    """Store a trial in `folder`, its predictions first.

    Raises
    ------
    TuningError
        The files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if record.predictions is not None:
            table = pa.table({"row_id": row_ids, "fold": fold, "prediction": predictions})
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            _replace(folder / record.predictions, sink.getvalue().to_pybytes())
        write_json(folder / f"trial_{record.number:04d}.json", asdict(record))
    except OSError as e:
        msg = f"{folder}: trial {record.trial_id} cannot be recorded ({e})"
        raise TuningError(msg, hint="free space or fix the permissions, then run again") from e


def read_records(folder: Path) -> list[TrialRecord]:
    """The trials recorded in `folder` by number; none where there is no such folder.

    Raises
    ------
    TuningError
        A record is not readable.
    """
    records = []
    for path in sorted(folder.glob("trial_*.json")):
        try:
            records.append(TrialRecord(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as e:
            msg = f"{path}: not a readable trial record ({e})"
            raise TuningError(msg, hint="delete this file and tune again") from e
    return records


def read_predictions(folder: Path, record: TrialRecord) -> pa.Table:
    """Out-of-fold predictions of a complete trial: row_id, fold, prediction (float32).

    Raises
    ------
    TuningError
        The trial is not complete, or its file is missing.
    """
    if record.predictions is None or not (folder / record.predictions).is_file():
        msg = f"trial {record.trial_id} ({record.state}) has no out-of-fold predictions in {folder}"
        raise TuningError(msg, hint="only trials that finished all folds have predictions")
    return pq.read_table(folder / record.predictions)


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the smallest cv_rmse, the earliest of equals; None without a complete one."""
    complete = [r for r in records if r.cv_rmse is not None]
    return min(complete, key=lambda r: (r.cv_rmse, r.stage, r.number), default=None)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
