"""All that tuning tried, in numbers that the tests of many candidates need. OOT rows are never read here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketray.errors import TuningError
from marketray.evaluation.multiple import session_sums
from marketray.tuning.records import TrialRecord, configuration, read_predictions, read_records

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.models.base import Task

__all__ = ["Trials", "read_trials"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trials:
    """The full-budget trials of a tuning by session, and how many were tried in all.

    What was tried is a configuration, family and parameters: a trial that repeats another one, as the first
    of stage 2 repeats the best of stage 1, is no further candidate.

    Attributes
    ----------
    names:
        Trial ids, m of them, the first of each configuration.
    session_open_us:
        Opens of the sessions with out-of-fold rows, microseconds since the epoch, UTC, ascending, shape (s,).
    losses:
        Mean squared error of each trial's out-of-fold predictions over each session's rows, shape (s, m).
    zero:
        That of the zero forecast, shape (s,).
    returns:
        Sum over each session's rows of sign(forecast) · label, shape (s, m): what it earns, before costs,
        to take a position of one unit over the horizon at every decision. Neither unit nor horizon
        matters to a Sharpe ratio.
    counted:
        All configurations: complete, pruned, and those of earlier tunings of this run.
    pruned:
        Configurations of this tuning that were stopped early; they have no predictions.
    earlier:
        Configurations that other tunings of the same run folder tried, each tuning's on its own.
    records:
        All trials of this tuning, repeated ones too.
    """

    names: tuple[str, ...]
    session_open_us: IntArray
    losses: FloatArray
    zero: FloatArray
    returns: FloatArray
    counted: int
    pruned: int
    earlier: int
    records: tuple[TrialRecord, ...]

    @property
    def counts(self) -> dict[str, int]:
        """counted, pruned and earlier by name."""
        return {"counted": self.counted, "pruned": self.pruned, "earlier": self.earlier}


def read_trials(run_path: Path, tuning_key: str, block: Block, *, task: Task = "regression") -> Trials:
    """Score the stored out-of-fold predictions of every complete trial, all families and both stages.

    Parameters
    ----------
    run_path:
        The run's folder, which holds ``tuning/<tuning_key>/<family>/stage<n>``.
    tuning_key:
        Which tuning; trials of the others are counted as earlier ones.
    block:
        Train + validation rows in any order; features are not looked at.
    task:
        ``direction``: predictions are P(up); the zero forecast is 0.5 and errors are of probability.

    Raises
    ------
    TuningError
        There is no complete trial, a record cannot be read, predictions are missing, or they belong to rows
        that the block lacks.
    """
    root = run_path / "tuning"
    found = list(_records(root / tuning_key))
    distinct = _distinct(found)
    complete = [(folder, record) for folder, record in distinct if record.state == "complete"]
    if not complete:
        msg = f"{root / tuning_key}: none of {len(found)} trials is complete; required: at least one"
        raise TuningError(msg, hint="run the tune stage first (marketray tune)")
    ids = read_predictions(*complete[0])["row_id"]
    rows = block.take(_positions(ids, block, complete[0][1]))
    centre, y = (0.5, rows.up - 0.5) if task == "direction" else (0.0, rows.y)
    losses, returns = [], []
    for folder, record in complete:
        forecast = _prediction(folder, record, ids) - centre
        losses.append(session_sums((y - forecast) ** 2, rows.session_open_us)[1])
        returns.append(session_sums(np.sign(forecast) * rows.y, rows.session_open_us)[1])
    sessions, zero, count = session_sums(y**2, rows.session_open_us)
    others = [folder for folder in root.iterdir() if folder.is_dir() and folder.name != tuning_key]
    earlier = sum(len(_configurations(folder)) for folder in others)
    return Trials(
        tuple(record.trial_id for _, record in complete),
        sessions,
        np.column_stack(losses) / count[:, None],
        zero / count,
        np.column_stack(returns),
        len(distinct) + earlier,
        len(distinct) - len(complete),
        earlier,
        tuple(record for _, record in found),
    )


def _records(folder: Path) -> Iterator[tuple[Path, TrialRecord]]:
    for stage in sorted(folder.glob("*/stage*")):
        for record in read_records(stage):
            yield stage, record


def _distinct(found: Sequence[tuple[Path, TrialRecord]]) -> list[tuple[Path, TrialRecord]]:
    """The first trial of each configuration, a complete one where there is one."""
    complete_first = sorted(found, key=lambda item: item[1].state != "complete")
    first: dict[str, tuple[Path, TrialRecord]] = {}
    for folder, record in complete_first:
        first.setdefault(configuration(record.family, record.params), (folder, record))
    return list(first.values())


def _configurations(folder: Path) -> set[str]:
    """What another tuning tried; its records may be of another version in all but family and params."""
    tried = set()
    for path in folder.glob("*/stage*/trial_*.json"):
        try:
            record = json.loads(path.read_text())
            tried.add(configuration(record["family"], record["params"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            msg = f"{path}: not a readable trial record ({type(e).__name__}: {e})"
            raise TuningError(msg, hint="restore the file: what earlier tunings tried counts too") from e
    return tried


def _positions(ids: pa.ChunkedArray, block: Block, record: TrialRecord) -> npt.NDArray[np.intp]:
    positions = pc.index_in(ids, value_set=pa.array(block.row_ids))
    if positions.null_count:
        msg = f"trial {record.trial_id}: {positions.null_count} of {len(ids)} rows are not among the block's"
        raise TuningError(msg, hint="tune again; the dataset has changed since")
    return np.asarray(positions.to_numpy(), dtype=np.intp)


def _prediction(folder: Path, record: TrialRecord, ids: pa.ChunkedArray) -> FloatArray:
    table = read_predictions(folder, record)
    if not table["row_id"].equals(ids):
        msg = f"trial {record.trial_id} was scored on other rows than the rest; required: the same"
        raise TuningError(msg, hint="delete this trial's record and tune again")
    return np.asarray(table["prediction"].to_numpy(), dtype=np.float64)
