"""The backtest command on Ray: the selected model on test, or a fit a window over all open rows."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marketray.cluster import connect
from marketray.dataset.load import dataset_content, load_blocks, load_split
from marketray.dataset.rows import utc_series
from marketray.dataset.splits import OPEN_SPLITS
from marketray.errors import MarketrayError
from marketray.evaluation.backtest import backtest_section
from marketray.evaluation.candidates import Candidate, current_tuning, predict
from marketray.evaluation.prices import read_bars, require_costs
from marketray.evaluation.ranking_stage import rank_candidates
from marketray.evaluation.selection import Rows, figures
from marketray.evaluation.walkforward import Window, forecast_window, plan_windows
from marketray.hashing import code_hash, digest, table_hash
from marketray.lake import Lake, Manifest
from marketray.models import MODEL_CODE

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from marketray.dataset.load import Block
    from marketray.settings import Settings

__all__ = ["Backtest", "WalkForward", "run_backtest", "walk_forward"]

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Backtest:
    """What ``marketray backtest`` found.

    Attributes
    ----------
    family, mode:
        Whose forecasts were traded: the refitted one's on test (``selected``), or an ``expanding`` or
        ``rolling`` walk-forward's.
    chosen_by:
        What the family was chosen by, in words.
    windows, fitted:
        Fits of the walk-forward, and how many of them were made now; 0 for ``selected``.
    skill:
        Figures of the forecasts by period (`marketray.evaluation.selection.figures`).
    assumptions, periods, stress:
        See `marketray.evaluation.backtest.backtest_section`.
    document:
        Path of backtest.json, which holds all this and the curve.
    """

    family: str
    mode: str
    chosen_by: str
    windows: int
    fitted: int
    skill: dict[str, Any]
    assumptions: dict[str, Any]
    periods: dict[str, Any]
    stress: list[dict[str, Any]]
    document: str


@dataclass(frozen=True)
class WalkForward:
    """Forecasts of the last rows of a block, and how many fits they come from, in all and now."""

    prediction: FloatArray
    windows: int = 0
    fitted: int = 0


_CHOSEN_BY = {
    "selected": "smallest RMSE on test, near ties by cv_rmse, as selection ranks",
    "walk_forward": "smallest cv_rmse of tuning, so that no test row had a part in it",
}


def run_backtest(settings: Settings) -> Backtest:
    """Trade the best family's forecasts and write ``<run>/backtest.json``; never reads OOT or OOT2.

    The selected model is that of selection, ranked on test. A walk-forward takes the family with the smallest
    error over the folds of tuning instead: its forecasts of test are then free of every choice.
    Joins Ray once it is known that there are bars and costs to trade at.

    Raises
    ------
    TuningError
        There is no tuning result, or it belongs to other rows, settings or code.
    SettingsError
        Bars have no quotes and ``backtest.spread_bps`` is not set.
    DataError
        There are too few sessions for the walk-forward.
    LakeError
        There are no bars, or the results cannot be written.
    """
    mode = settings.backtest.walk_forward
    block = load_blocks(settings, OPEN_SPLITS if mode else ("test",))
    bars = read_bars(settings, int(block.decision_us[0]), int(block.decision_us[-1]))
    require_costs(settings, bars)
    logger.info("Ray dashboard: %s", connect(settings))
    if mode:
        candidates = current_tuning(settings).candidates
        family = min(candidates, key=lambda name: (candidates[name].cv_rmse, name))
        walked = walk_forward(settings, block, candidates[family])
        block = block.take(slice(len(block) - len(walked.prediction), len(block)))
    else:
        ranking = rank_candidates(settings)
        family = ranking.order[0]
        walked = WalkForward(predict(ranking.folders[family], block))
    section, skill = _evaluated(settings, bars, block, walked.prediction)
    done = Backtest(
        family=family,
        mode=mode or "selected",
        chosen_by=_CHOSEN_BY["walk_forward" if mode else "selected"],
        windows=walked.windows,
        fitted=walked.fitted,
        skill=skill,
        **{name: section[name] for name in ("assumptions", "periods", "stress")},
        document=str(settings.run_path / "backtest.json"),
    )
    document = {**asdict(done), "curve": section["curve"], "settings": _own_settings(settings)}
    Lake(str(settings.run_path)).write_json("backtest.json", document)
    return done


def walk_forward(settings: Settings, block: Block, candidate: Candidate) -> WalkForward:
    """Fit the candidate for every window, one Ray task each, and keep its forecasts as they come.

    A window's forecasts are one file below ``<run>/walkforward``, whole or not at all; those that are there
    are not made again, so a run that was killed goes on where it was.

    Parameters
    ----------
    block:
        Rows of train, validation and test, in time order.

    Raises
    ------
    DataError
        There are too few sessions.
    ModelError
        A fit is refused.
    """
    rules, labels = settings.backtest, settings.labels
    assert rules.walk_forward is not None
    windows = plan_windows(
        block.decision_us,
        block.label_end_us,
        block.session_open_us,
        mode=rules.walk_forward,
        refit_sessions=rules.refit_sessions,
        train_sessions=rules.train_sessions,
    )
    fitted = load_split(settings).fitted
    key = digest(
        dataset_content(settings, OPEN_SPLITS),
        candidate.identity,
        labels.model_dump(mode="json"),
        settings.tuning.seed,
        [feature.to_json() for feature in fitted],
        code_hash(*MODEL_CODE, "marketray.evaluation.walkforward", "marketray.evaluation.candidates"),
    )
    store = _Store(settings.run_path, key, block)
    missing = [window for window in windows if not store.holds(window)]
    logger.info("backtest: %d of %d windows to fit, %s", len(missing), len(windows), candidate.family)
    given = {"task": labels.task, "seed": settings.tuning.seed, "fitted": fitted}
    with _progress(len(windows), len(windows) - len(missing)) as advance:
        for window, prediction in _forecast_all(missing, block, candidate, given):
            store.put(window, prediction)
            advance()
    return WalkForward(np.concatenate([store.get(w) for w in windows]), len(windows), len(missing))


class _Store:
    """One file a window: decision_at and prediction."""

    def __init__(self, run_path: Path, key: str, block: Block) -> None:
        self._lake, self._key, self._block = Lake(str(run_path)), key, block
        self._dataset = f"walkforward/{key[:16]}"

    def holds(self, window: Window) -> bool:
        return self._lake.is_current(self._dataset, self._partition(window), self._key)

    def put(self, window: Window, prediction: FloatArray) -> None:
        decision = utc_series("decision_at", self._block.decision_us[window.start : window.stop]).to_arrow()
        table = pa.table({"decision_at": decision, "prediction": prediction})
        manifest = Manifest(self._key, table_hash(table), len(prediction), len(prediction))
        self._lake.write(self._dataset, self._partition(window), table, manifest)

    def get(self, window: Window) -> FloatArray:
        table = self._lake.read(self._dataset, self._partition(window), ["prediction"])
        return np.asarray(table["prediction"].to_numpy(), dtype=np.float64)

    def _partition(self, window: Window) -> dict[str, str]:
        """The rows name a window, so that plans which have it in common share it."""
        return {"rows": f"{window.fit_start}-{window.fit_stop}-{window.start}-{window.stop}"}


def _forecast_all(
    windows: Sequence[Window], block: Block, candidate: Candidate, given: Mapping[str, Any]
) -> Iterator[tuple[Window, FloatArray]]:
    """Forecasts as they are finished; no more fits wait in Ray than keep its CPUs busy."""
    import ray

    if not windows:
        return
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    task: Any = ray.remote(num_cpus=1)(cast(Any, forecast_window))
    reference, waiting = ray.put(block), deque(windows)
    running: dict[Any, Window] = {}
    while waiting or running:
        while waiting and len(running) < 2 * max(1, int(there.get("CPU", 1))):
            window = waiting.popleft()
            named = task.options(name=f"walkforward:{candidate.family}:{window.number}")
            running[named.remote(window, reference, candidate, **given)] = window
        done, _ = ray.wait(list(running), num_returns=1)
        for finished in done:
            try:
                prediction = ray.get(finished)
            except ray.exceptions.RayTaskError as e:
                if isinstance(e.cause, MarketrayError):
                    raise e.cause from None
                raise
            yield running.pop(finished), prediction


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, a log line each tenth of the windows elsewhere; yields what to call after each."""
    console = Console(stderr=True)
    columns = (TextColumn("walk-forward"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    count = done
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("windows", total=total, completed=done)

        def advance() -> None:
            nonlocal count
            count += 1
            bar.advance(shown)
            if not console.is_terminal and count * 10 // total > (count - 1) * 10 // total:
                logger.info("backtest: %d of %d windows are fitted", count, total)

        yield advance


def _evaluated(
    settings: Settings, bars: pl.DataFrame, block: Block, prediction: FloatArray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The section over all rows, with the periods of a walk-forward beside it, and the forecasts' skill."""
    direction = settings.labels.task == "direction"
    centred = prediction - (0.5 if direction else 0.0)
    y = block.up - 0.5 if direction else block.y
    test = load_split(settings).blocks["test"].rows
    before = len(block) - test
    parts = {"test": slice(max(before, 0), len(block))}
    if settings.backtest.walk_forward is not None:
        parts = {"all": slice(0, len(block)), "train_validation": slice(0, max(before, 0)), **parts}
    given = {
        name: (block.decision_us[rows], centred[rows])
        for name, rows in parts.items()
        if rows.stop > rows.start
    }
    first = next(iter(given))
    section = backtest_section(settings, bars, {first: given[first]})
    others = {name: forecast for name, forecast in given.items() if name != first}
    if others:
        section["periods"] |= backtest_section(settings, bars, others)["periods"]
    horizon = settings.labels.horizon_minutes
    skill = {}
    for name in given:
        rows = parts[name]
        labels = Rows(y[rows], {"zero": np.zeros(len(y[rows]))}, block.decision_us[rows], horizon)
        skill[name] = figures(labels, centred[rows], alpha=settings.gate.alpha)
    return section, skill


def _own_settings(settings: Settings) -> dict[str, Any]:
    names = {"name", "instrument", "bar_interval_minutes", "labels", "market", "backtest"}
    return settings.model_dump(mode="json", include=names)
