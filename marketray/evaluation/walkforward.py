"""Walk-forward forecasts: fit on the past of a window, forecast the window, go on to the next.

The rows are those of train, validation and test; out-of-time rows take no part (law 6). Family, parameters
and rounds are those that tuning chose on train and validation, so only the windows in test are free of that
choice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from marketray.dataset.splits import gap_before
from marketray.errors import DataError
from marketray.evaluation.candidates import Candidate, predict, put_folder, refit

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.features.fitted import FittedFeature
    from marketray.models.base import Task

__all__ = ["Window", "forecast_window", "plan_windows"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """One fit: on the rows [fit_start, fit_stop), for the forecasts of [start, stop)."""

    number: int
    fit_start: int
    fit_stop: int
    start: int
    stop: int


def plan_windows(
    decision_us: IntArray,
    label_end_us: IntArray,
    session_open_us: IntArray,
    *,
    mode: Literal["expanding", "rolling"],
    refit_sessions: int,
    train_sessions: int | None = None,
) -> list[Window]:
    """Windows over all rows but the first sessions, in time order and without a gap between them.

    A fit ends before its window by the rule of every split: no label reaches the window's first decision
    (purge), and one more session is left out, or 1 % of the fit's rows where that is less (embargo).

    Parameters
    ----------
    decision_us, label_end_us, session_open_us:
        Decision times (increasing), label ends and session opens, microseconds since the epoch, UTC, (n,).
    mode:
        ``expanding``: every fit begins with the first row. ``rolling``: with the first row of the last
        `train_sessions` sessions.
    refit_sessions:
        Sessions of a window.
    train_sessions:
        Sessions before the first window; None: a third of all.

    Raises
    ------
    DataError
        There are too few sessions, or a gap leaves nothing to fit on.
    """
    opens, first_rows, rows = np.unique(session_open_us, return_index=True, return_counts=True)
    before = len(opens) // 3 if train_sessions is None else train_sessions
    if not 0 < before < len(opens):
        msg = f"walk-forward: train_sessions={before} of {len(opens)} sessions; required: at least 1, not all"
        raise DataError(msg, hint="lower backtest.train_sessions, or use a longer history")
    edges = np.append(first_rows, len(decision_us))
    windows = []
    for number, first in enumerate(range(before, len(opens), refit_sessions)):
        start, stop = int(edges[first]), int(edges[min(first + refit_sessions, len(opens))])
        fit_start = 0 if mode == "expanding" else int(edges[first - before])
        fit_stop, _, _ = gap_before(
            fit_start, start, decision_us, label_end_us, int(np.median(rows)), edge=start
        )
        if fit_stop <= fit_start:
            msg = f"walk-forward: no row is left to fit window {number} on, of {start - fit_start} before it"
            raise DataError(msg, hint="raise backtest.train_sessions")
        windows.append(Window(number, fit_start, fit_stop, start, stop))
    return windows


def forecast_window(
    window: Window,
    block: Block,
    candidate: Candidate,
    *,
    task: Task,
    seed: int,
    fitted: Sequence[FittedFeature] = (),
) -> FloatArray:
    """Fit the candidate anew for one window, on one thread, and forecast its rows.

    Returns
    -------
    array
        Returns as fractions, or P(up) for the direction task, shape (stop − start,).
    """
    files = refit(
        candidate.family,
        candidate.params,
        candidate.rounds,
        block.take(slice(window.fit_start, window.fit_stop)),
        task=task,
        threads=1,
        seed=seed,
        fitted=fitted,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        put_folder(folder, files)
        return predict(folder, block.take(slice(window.start, window.stop)))
