"""Forecasts and figures of all candidates on any split, in one place and in the same units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.dataset.load import load_blocks, load_split
from marketray.evaluation.candidates import Tuned, out_of_fold, predict
from marketray.evaluation.selection import Rows, compare, rows_of

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.settings import Settings

__all__ = ["Forecasts"]

FloatArray = npt.NDArray[np.float64]


class Forecasts:
    """The refitted candidates, applied.

    Parameters
    ----------
    settings:
        Names the dataset, the label and the task.
    tuned:
        Candidates with their out-of-fold predictions.
    folders:
        Native folder of the refitted model by family.

    Attributes
    ----------
    train_y, train_decision_us:
        Labels and decision times of train + validation, shape (n,).
    """

    def __init__(self, settings: Settings, tuned: Tuned, folders: Mapping[str, Path]) -> None:
        self.settings, self.tuned, self.folders = settings, tuned, folders
        past = load_blocks(settings, ("train", "validation"))
        self.train_y, self.train_decision_us = past.y, past.decision_us
        self._centre = 0.5 if settings.labels.task == "direction" else 0.0

    def rows(self, block: Block, train_y: FloatArray | None = None) -> Rows:
        """Labels and naive forecasts; the training mean is that of `train_y`, or of train + validation."""
        labels = self.settings.labels
        return rows_of(
            block,
            self.train_y if train_y is None else train_y,
            horizon_minutes=labels.horizon_minutes,
            bar_interval_minutes=self.settings.bar_interval_minutes,
            task=labels.task,
        )

    def of(self, name: str, block: Block) -> FloatArray:
        """Centred forecasts of one candidate, shape (n,)."""
        return self.at(self.folders[name], block)

    def answers(self, name: str, block: Block) -> FloatArray:
        """What one candidate answers: returns as fractions, or P(up) for the direction task; shape (n,)."""
        return predict(self.folders[name], block)

    def at(self, folder: Path, block: Block) -> FloatArray:
        """Centred forecasts of the model in `folder`, shape (n,)."""
        return predict(folder, block) - self._centre

    def all(self, block: Block) -> dict[str, FloatArray]:
        """Centred forecasts of every candidate."""
        return {name: self.of(name, block) for name in self.folders}

    def table(self, block: Block, alpha: float) -> dict[str, dict[str, Any]]:
        """Figures of every candidate and naive forecast on a block."""
        return compare(self.rows(block), self.all(block), alpha=alpha)

    def open_splits(self, alpha: float) -> dict[str, dict[str, dict[str, Any]]]:
        """Figures on validation, from out-of-fold predictions, and on test."""
        block = load_blocks(self.settings, ("validation",))
        candidates = self.tuned.candidates
        forecasts = {name: out_of_fold(candidates[name], block) - self._centre for name in self.folders}
        train = load_split(self.settings).blocks["train"].rows
        rows = self.rows(block, self.train_y[:train])
        validation = compare(rows, forecasts, alpha=alpha)
        return {"validation": validation, "test": self.table(load_blocks(self.settings, ("test",)), alpha)}
