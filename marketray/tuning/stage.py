"""The tuning stage: all families at once on one Ray cluster, two stages each, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError, SettingsError, TuningError
from marketray.hashing import code_hash, digest
from marketray.models import MODEL_CODE, get_family
from marketray.tuning.progress import ProgressView
from marketray.tuning.records import TrialRecord, write_json
from marketray.tuning.result import FamilyBest, TuneResult, overlap_share, read_result, stored, summary

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.dataset.load import Block
    from marketray.dataset.splits import Split
    from marketray.features.fitted import FittedFeature
    from marketray.models.base import Task
    from marketray.settings import Settings, TuningSettings
    from marketray.tuning.actor import FamilyJob
    from marketray.tuning.trial import Fold

__all__ = [
    "FamilyBest",
    "TuneResult",
    "family_jobs",
    "overlap_share",
    "run_tune",
    "trial_resources",
    "tune_block",
    "tuning_key",
]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_TRIAL_CPUS = 0.8  # what a trial asks Ray for; the rest is for the small actors of a service on the same CPUs


def tuning_key(settings: Settings) -> str:
    """Digest of all that the tuning's outcome follows from: rows, folds, fitted features, settings, code."""
    from marketray.dataset.load import dataset_content, load_split

    split = load_split(settings)
    folds = [[a.start, a.stop, b.start, b.stop] for a, b in split.folds]
    return digest(
        dataset_content(settings),
        folds,
        [f.to_json() for f in split.fitted],
        settings.labels.task,
        settings.tuning.model_dump(mode="json"),
        code_hash("marketray.tuning", *MODEL_CODE),
    )


def run_tune(settings: Settings) -> TuneResult:
    """Tune every family on the train and validation rows.

    Trial records, out-of-fold predictions and ``result.json`` lie in ``<run_path>/tuning/<key>``; a copy of
    the latest result is ``<run_path>/tuning.json``. A finished tuning of the same rows, settings and code
    is not repeated; a killed one goes on where it was.

    Raises
    ------
    TuningError
        A trial failed, or a family has no trial that finished all folds.
    RegistryError
        The tracking server cannot be reached.
    LakeError
        There is no dataset.
    SettingsError
        The folds leave out validation rows, whose out-of-fold predictions selection needs, or the trials are
        to fit on a GPU and the cluster has none.
    """
    from marketray import tracking
    from marketray.dataset.load import load_blocks, load_split

    key = tuning_key(settings)
    folder = settings.run_path / "tuning" / key
    found = read_result(folder / "result.json")
    if found is not None:
        logger.info("tune: skipped, tuning %s is finished", key)
        write_json(settings.run_path / "tuning.json", asdict(found) | {"skipped": False})
        return found
    split = load_split(settings)
    _require_scored_validation(split, settings)
    block = load_blocks(settings)
    parent: list[str] = []

    def begin() -> None:
        details = {
            "rows": len(block),
            "row_id_hash": block.row_id_hash,
            "data_hash": split.detail.get("key"),
            "catalog_hash": split.detail.get("catalog_hash"),
            "columns": len(block.columns),
        }
        parent.append(tracking.open_parent_run(settings, key, details))

    def log(records: list[TrialRecord]) -> None:
        tracking.log_trials(settings, parent[0], [_plain(r) for r in records])

    result = tune_block(
        block,
        split.folds,
        settings.tuning,
        folder,
        key=key,
        task=settings.labels.task,
        fitted=split.fitted,
        on_start=begin,
        on_family=log,
    )
    tracking.close_parent_run(
        settings, parent[0], {f"{n}.cv_rmse": b.cv_rmse for n, b in result.families.items()}
    )
    result = replace(result, parent_run_id=parent[0])
    write_json(folder / "result.json", asdict(result))
    write_json(settings.run_path / "tuning.json", asdict(result))
    return result


def _require_scored_validation(split: Split, settings: Settings) -> None:
    train, validation = (split.blocks[name].rows for name in ("train", "validation"))
    scored = train + validation - min(score.start for _, score in split.folds)
    if scored < validation:
        cv = settings.split
        msg = (
            f"split.cv_folds={cv.cv_folds}, split.cv_share={cv.cv_share:g}: the folds score {scored} rows; "
            f"required: all {validation} validation rows"
        )
        raise SettingsError(msg, hint="raise split.cv_folds or split.cv_share, or lower split.validation")


def tune_block(
    block: Block,
    folds: Sequence[Fold],
    tuning: TuningSettings,
    folder: Path,
    *,
    key: str = "",
    task: Task = "regression",
    fitted: Sequence[FittedFeature] = (),
    on_start: Callable[[], None] | None = None,
    on_family: Callable[[list[TrialRecord]], None] | None = None,
) -> TuneResult:
    """Tune on rows in memory; Ray must be connected.

    Parameters
    ----------
    block, folds:
        Rows in time order, and (rows to fit on, rows to score) of each fold.
    folder:
        Where the records go, absolute.
    fitted:
        Features to fit on the training rows of each fold.
    on_start:
        Called once the families are under way.
    on_family:
        Called in this process with all records of each family at the end.
    """
    import ray

    started = time.perf_counter()
    jobs = family_jobs(folds, tuning, folder, task, fitted)
    before = stored(jobs, folder)
    reference = ray.put(block)
    slots = _slots()
    each = trial_resources(tuning, slots, ray.cluster_resources())  # type: ignore[no-untyped-call]
    task_reference = _submit(jobs, slots, each, reference)
    finished: list[Any] = []
    try:
        with ProgressView(folder, {j.family: (j.stage1_trials, j.stage2_trials) for j in jobs}) as view:
            if on_start is not None:
                on_start()
            while not finished:
                finished, _ = ray.wait([task_reference], timeout=_POLL_SECONDS)
                view.update()
    finally:
        # A failed run leaves nothing behind. A finished task must not be cancelled: Ray 2.60 aborts this
        # process when its last reply and the cancellation cross ("task that was not pending").
        if not finished:
            ray.cancel(task_reference, force=True)
    records = _result(task_reference)
    if on_family is not None:
        for job in jobs:
            on_family(records[job.family])
    return summary(jobs, records, slots, folder, key, task, time.perf_counter() - started, before)


def family_jobs(
    folds: Sequence[Fold],
    tuning: TuningSettings,
    folder: Path,
    task: Task,
    fitted: Sequence[FittedFeature] = (),
) -> list[FamilyJob]:
    """Each family's work.

    Raises
    ------
    TuningError
        No family knows the task.
    """
    from marketray.tuning.actor import FamilyJob
    from marketray.tuning.trial import Budget

    names = [name for name in tuning.families if task in get_family(name).tasks]
    for name in sorted(set(tuning.families) - set(names)):
        logger.warning("tune: %s is left out, it has no task=%s", name, task)
    if not names:
        msg = f"tuning.families={list(tuning.families)}: none of them has task={task!r}"
        raise TuningError(msg, hint="add xgboost or lightgbm")
    return [
        FamilyJob(
            family=name,
            folder=str(folder / name),
            folds=tuple(folds),
            budget=Budget(task, 1, tuning.seed, tuning.patience, tuning.round_step, tuning.device),
            stage1_trials=tuning.stage1_trials,
            stage2_trials=tuning.stage2_trials,
            concurrent=tuning.parallel_trials,
            pruning=tuning.pruning,
            max_rounds=tuning.max_rounds,
            max_lags=tuning.ar_max_lags,
            fitted=tuple(fitted),
            feature_groups=tuning.feature_groups,
        )
        for name in names
    ]


def _slots() -> int:
    """Trials at once: one for every whole CPU of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1.0)))  # type: ignore[no-untyped-call]


def trial_resources(tuning: TuningSettings, slots: int, cluster: Mapping[str, float]) -> dict[str, float]:
    """What each of `slots` trials at once asks Ray for.

    Raises
    ------
    SettingsError
        The trials are to fit on a GPU, and the cluster has none.
    """
    if tuning.device == "cpu":
        return {"cpu": _TRIAL_CPUS}
    gpus = cluster.get("GPU", 0.0)
    if gpus == 0:
        msg = "tuning.device='cuda', but the cluster has no GPU that Ray knows; required: one, or cpu"
        raise SettingsError(msg, hint="start Ray on a node with a GPU, or with --num-gpus")
    return {"cpu": _TRIAL_CPUS, "gpu": min(1.0, gpus / slots)}


def _submit(jobs: list[FamilyJob], slots: int, each: dict[str, float], block: Any) -> Any:
    """Start the tuning's task on this node, where the records belong; its trials run anywhere."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from marketray.tuning.search import tune_families

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_retries=2)(tune_families)
    return remote.options(name="tune", scheduling_strategy=here).remote(jobs, slots, each, [block])


def _result(reference: Any) -> dict[str, list[TrialRecord]]:
    import ray

    try:
        found: dict[str, list[TrialRecord]] = ray.get(reference)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, MarketrayError):
            raise e.cause from None
        raise
    return found


def _plain(record: TrialRecord) -> dict[str, Any]:
    plain = asdict(record)
    for name in ("fold_rmse", "fold_zero_rmse", "fold_rounds"):
        plain[name] = {f"fold{k}": value for k, value in enumerate(plain[name])}
    plain["rungs"] = len(record.rungs)
    return plain
