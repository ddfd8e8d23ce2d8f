"""Tuning: our concurrent, pruned tuning against plain sequential Optuna, in one run.

    python -m benchmarks.tuning --rows 20000 --columns 40 --stage1 5 --stage2 5 --seeds 1

The rival has the same first and narrowed spaces, ranked columns, folds, early stopping, threads per trial,
sampler and first points, and no pruner; it runs one trial after another, family after family. Rows are
synthetic with a planted R² of 2 %. The last line is JSON: seconds, sequential_seconds, speedup, rmse,
sequential_rmse (means over the seeds of the best purged cross-validated RMSE), overhead_share, trials; beside
the wall clock, cpu_seconds and sequential_cpu_seconds, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy loads: the rival has a trial's threads too

import numpy as np
import optuna

from benchmarks.processor import ProcessorTime
from marketray.cluster import prepare_environment
from marketray.dataset.load import Block
from marketray.settings import TuningSettings

if TYPE_CHECKING:
    from marketray.models.contribution import Ranking
    from marketray.tuning.actor import FamilyJob
    from marketray.tuning.spaces import Space

LAGS = 60
HORIZON = 30
PLANTED_R2 = 0.02


def synthetic(rows: int, columns: int, seed: int) -> Block:
    """Rows with a label of sd 1e-3, 2 % of whose variance follows from five columns, two in product."""
    r = np.random.default_rng(seed)
    lags = min(LAGS, max(columns // 3, 1))
    names = tuple(f"return_1_lag_{k}" for k in range(lags))
    names += tuple(f"feature_{k}" for k in range(columns - lags))
    X = r.standard_normal((rows, columns), np.float32)
    f = X[:, lags:].astype(np.float64)
    signal = X[:, 0] + f[:, 0] + np.tanh(f[:, 1]) + f[:, 2] * f[:, 3]
    signal *= np.sqrt(PLANTED_R2) / signal.std()
    y = 1e-3 * (signal + np.sqrt(1 - PLANTED_R2) * r.standard_t(6, rows) / np.sqrt(1.5))
    minute = np.arange(rows, dtype=np.int64) * 60_000_000
    ids = np.array([f"SYN@{k:08d}" for k in range(rows)])
    return Block(ids, minute, minute, minute + HORIZON * 60_000_000, y, 100 + y, names, X)


def folds_of(rows: int) -> list[tuple[slice, slice]]:
    """Three expanding folds of 15 %, a gap of the horizon plus one day before each."""
    size, gap = int(rows * 0.15), min(HORIZON + 1_380, rows // 50)
    starts = [rows - (3 - k) * size for k in range(3)]
    return [(slice(0, s - gap), slice(s, s + size)) for s in starts]


def sequential(block: Block, jobs: list[FamilyJob]) -> dict[str, float]:
    """Plain Optuna: both stages of each family in turn."""
    from marketray.tuning.family import fine_space, space_of

    started, cpu = time.perf_counter(), time.process_time()
    best, trials = float("inf"), 0
    for job in jobs:
        first = space_of(job, block.columns)
        coarse = _optimise(block, job, first, job.stage1_trials, 1)
        best, trials = min(best, coarse.best_value), trials + len(coarse.trials)
        if job.stage2_trials:
            rankings = _rankings(block, job, coarse)
            space = fine_space(job.family, first, coarse.best_params, rankings)
            fine = _optimise(block, job, space, job.stage2_trials, 2, rankings)
            best, trials = min(best, fine.best_value), trials + len(fine.trials)
    return {
        "sequential_seconds": time.perf_counter() - started,
        "sequential_cpu_seconds": time.process_time() - cpu,
        "sequential_rmse": best,
        "sequential_trials": trials,
    }


def _rankings(block: Block, job: FamilyJob, coarse: optuna.Study) -> tuple[Ranking, ...]:
    from marketray.models import get_family
    from marketray.tuning.contributions import rank_folds
    from marketray.tuning.trial import FoldCache

    if not job.feature_groups:
        return ()
    cache = FoldCache(get_family(job.family), block, job.folds, job.budget)
    return rank_folds(cache, coarse.best_params, coarse.best_trial.user_attrs["rounds"]).rankings


def _optimise(
    block: Block, job: FamilyJob, space: Space, trials: int, stage: int, rankings: tuple[Ranking, ...] = ()
) -> optuna.Study:
    from marketray.models import get_family
    from marketray.tuning.spaces import suggest
    from marketray.tuning.trial import FoldCache, run_trial

    cache = FoldCache(get_family(job.family), block, job.folds, job.budget, rankings=rankings)

    def objective(trial: optuna.Trial) -> float:
        suggest(trial, space)
        *_, last = run_trial(cache, trial.params, sample=False)
        trial.set_user_attr("rounds", max(1, round(float(np.mean(last.fold_rounds)))))
        return float(np.mean(last.fold_rmse))

    sampler = optuna.samplers.TPESampler(seed=job.budget.seed + 1_000 * stage)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    study.enqueue_trial(dict(space.start))
    study.optimize(objective, n_trials=trials)
    return study


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both, on the rows of one seed."""
    from marketray.tuning.stage import family_jobs, tune_block

    block, folds = synthetic(options.rows, options.columns, seed), folds_of(options.rows)
    settings = TuningSettings(stage1_trials=options.stage1, stage2_trials=options.stage2, seed=42 + seed)
    with tempfile.TemporaryDirectory() as folder:
        processor = ProcessorTime()
        processor.start()
        ours = tune_block(block, folds, settings, Path(folder))
        cpu_seconds = processor.stop()
        jobs = family_jobs(folds, settings, Path(folder), "regression")
    return {
        "seconds": ours.seconds,
        "cpu_seconds": cpu_seconds,
        "rmse": min(b.cv_rmse for b in ours.families.values()),
        "overhead_share": ours.overhead_share,
        "overlap_share": ours.overlap_share,
        "trials": ours.trials,
        "complete_trials": sum(b.n_complete for b in ours.families.values()),
        **sequential(block, jobs),
    }


def main() -> None:
    """Measure and print one JSON line last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("rows", 20_000), ("columns", 40), ("stage1", 5), ("stage2", 5), ("seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cpus", type=int, default=None, help="CPUs for Ray (default: all)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    prepare_environment()
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default; the rival runs at this process's
    import ray

    ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
    runs = []
    for seed in range(options.seeds):
        runs.append(measure(options, seed))
        print(json.dumps({"seed": seed, **runs[-1]}), flush=True)
    ray.shutdown()
    mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    print(
        json.dumps(
            {
                **mean,
                "speedup": mean["sequential_seconds"] / mean["seconds"],
                "cpu_ratio": mean["sequential_cpu_seconds"] / mean["cpu_seconds"],
                "rmse_ratio": mean["rmse"] / mean["sequential_rmse"],
                "trials": int(mean["trials"]),
                "rows": options.rows,
                "columns": options.columns,
                "seeds": options.seeds,
            }
        )
    )


if __name__ == "__main__":
    main()
