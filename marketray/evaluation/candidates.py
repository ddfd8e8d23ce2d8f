"""The families' best trials, refitted on train + validation. OOT rows are never read here."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import ModelError, TuningError
from marketray.models import get_family, load_model
from marketray.models.contribution import ALL, FEATURE_GROUP, GroupChoice
from marketray.models.extended import fit_extended
from marketray.tuning.stage import tuning_key

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.features.fitted import FittedFeature
    from marketray.models.base import Task
    from marketray.settings import Settings

__all__ = [
    "Candidate",
    "Refit",
    "Tuned",
    "current_tuning",
    "out_of_fold",
    "predict",
    "put_folder",
    "read_tuning",
    "refit",
]

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A family's best trial.

    Attributes
    ----------
    family:
        Its name.
    params:
        Parameters without the number of rounds. Where they choose a group of columns, ``feature_group`` is a
        `GroupChoice` as JSON, so that the refit can rank the columns of its own rows.
    rounds:
        Boosting rounds to fit with; 1 for families that are not boosted.
    cv_rmse:
        Mean RMSE over the folds, a fraction.
    trial_id:
        Which trial it was.
    predictions:
        Parquet file of its out-of-fold predictions (row_id, fold, prediction).
    importance:
        Shares of contribution of its columns, see `marketray.tuning.result.FamilyBest`; None: not ranked.
    """

    family: str
    params: dict[str, Any]
    rounds: int
    cv_rmse: float
    trial_id: str
    predictions: Path
    importance: dict[str, Any] | None = None

    @property
    def identity(self) -> list[Any]:
        """JSON values that decide what the refit gives."""
        return [self.family, self.params, self.rounds, self.cv_rmse]


@dataclass(frozen=True)
class Refit:
    """A fit on train + validation with everything fixed.

    Attributes
    ----------
    family, params, rounds:
        As a candidate has them.
    folder:
        Where the native model goes.
    leave_out:
        Stored columns that the model does not see, nor any fitted feature made from them.
    variant:
        What sets it apart from the family's candidate; empty for the candidate itself.
    """

    family: str
    params: dict[str, Any]
    rounds: int
    folder: Path
    leave_out: frozenset[str] = frozenset()
    variant: str = ""

    @property
    def name(self) -> str:
        """For people: the family and the variant."""
        return f"{self.family}:{self.variant}" if self.variant else self.family


@dataclass(frozen=True)
class Tuned:
    """What the tune stage left for selection."""

    tuning_key: str
    candidates: dict[str, Candidate]


def current_tuning(settings: Settings) -> Tuned:
    """The result of the last tuning, if it is that of the present dataset, settings and code.

    Raises
    ------
    TuningError
        There is no result, or it belongs to other rows, settings or code.
    """
    tuned, current = read_tuning(settings), tuning_key(settings)
    if tuned.tuning_key != current:
        msg = f"tuning.json has tuning_key={tuned.tuning_key}; required: {current}, of the present dataset"
        raise TuningError(msg, hint="the data, the settings or the code changed: run the tune stage again")
    return tuned


def read_tuning(settings: Settings) -> Tuned:
    """The result of the last tuning of this run.

    Raises
    ------
    TuningError
        There is none, or it cannot be read.
    """
    path = settings.run_path / "tuning.json"
    hint = "run the tune stage first (marketray tune)"
    try:
        document = json.loads(path.read_text())
        key = str(document["tuning_key"])
        candidates = {
            name: _candidate(name, best, settings.run_path) for name, best in document["families"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        msg = f"{path}: no readable tuning result ({type(e).__name__}: {e})"
        raise TuningError(msg, hint=hint) from e
    if not candidates:
        msg = f"{path}: holds no family; required: at least one"
        raise TuningError(msg, hint=hint)
    return Tuned(key, {name: candidates[name] for name in sorted(candidates)})


def _candidate(name: str, best: Mapping[str, Any], run_path: Path) -> Candidate:
    params = dict(best["params"])
    group = params.get(FEATURE_GROUP, ALL)
    if group != ALL:
        params[FEATURE_GROUP] = GroupChoice(group, **best["ranked_with"]).to_json()
    return Candidate(
        family=name,
        params=params,
        rounds=int(best["rounds"]),
        cv_rmse=float(best["cv_rmse"]),
        trial_id=str(best["trial_id"]),
        predictions=run_path / best["predictions"],
        importance=best.get("importance"),
    )


def refit(
    name: str,
    params: Mapping[str, Any],
    rounds: int,
    block: Block,
    *,
    task: Task,
    threads: int,
    seed: int,
    fitted: Sequence[FittedFeature] = (),
    leave_out: Collection[str] = (),
) -> dict[str, bytes]:
    """Fit a family on all rows of `block` with its rounds fixed, and the fitted features it takes.

    Columns in `leave_out`, and fitted features made from them, do not take part. Where `params` choose a
    group of columns, these rows decide what is in it; see `marketray.models.extended.fit_extended`.

    Returns
    -------
    dict
        The files of the native model folder by name, so that a remote task can hand them over.
    """
    family = get_family(name)
    y = block.y if task == "regression" else block.up
    fixed = family.with_rounds(params, rounds)
    if leave_out:
        block = block.select([name for name in block.columns if name not in leave_out])
        fitted = [feature for feature in fitted if feature.of not in leave_out]
    model = fit_extended(
        family, fixed, block.columns, block.values, y, fitted, task=task, threads=threads, seed=seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        model.save(Path(scratch))
        return {p.name: p.read_bytes() for p in sorted(Path(scratch).iterdir())}


def put_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder whole or not at all; one that is there is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, data in files.items():
            (aside / name).write_bytes(data)
        aside.chmod(0o755)  # mkdtemp makes private folders
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except OSError as e:
        shutil.rmtree(aside, ignore_errors=True)
        msg = f"{folder}: the model cannot be written ({e})"
        raise ModelError(msg, hint="free space or fix the permissions, then run again") from e


def predict(folder: Path, block: Block) -> FloatArray:
    """Predictions of the model in `folder` for a block, shape (n,)."""
    model = load_model(folder)
    return model.predict(block.select(model.columns).values)


def out_of_fold(candidate: Candidate, block: Block) -> FloatArray:
    """The candidate's stored out-of-fold predictions of a block's rows, shape (n,).

    Raises
    ------
    TuningError
        The file is missing, or lacks a row of the block.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    hint = "tune again; the dataset may have changed since"
    try:
        table = pq.read_table(candidate.predictions, columns=["row_id", "prediction"])
    except (OSError, pa.ArrowException) as e:
        msg = f"{candidate.predictions}: no readable out-of-fold predictions of {candidate.trial_id} ({e})"
        raise TuningError(msg, hint=hint) from e
    ids = table["row_id"].to_numpy(zero_copy_only=False).astype(np.str_)
    values = table["prediction"].to_numpy().astype(np.float64)
    order = np.argsort(ids)
    position = np.minimum(np.searchsorted(ids[order], block.row_ids), len(ids) - 1)
    found = order[position]
    missing = ids[found] != block.row_ids
    if missing.any():
        msg = f"{candidate.predictions}: lacks {int(missing.sum())} of {len(block)} validation rows"
        raise TuningError(msg, hint=hint)
    return np.asarray(values[found], dtype=np.float64)
