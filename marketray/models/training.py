"""A fit in steps, as tuning drives it: rows prepared once, rounds trained until the error stops falling.

Labels of half-hour returns are of the order of 1e-3. Families divide the label by its training standard
deviation, so that regularisation ranges mean the same on every instrument, and store the scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from marketray.models.base import FittedModel, Float64Array, Task

__all__ = ["EarlyStopping", "Prepared", "Training", "target_scale"]


@dataclass
class Prepared:
    """A family's own form of training (and evaluation) rows, built once and used by many trials."""

    columns: tuple[str, ...]
    task: Task
    target_scale: float
    target_mean: float  # of the scaled target
    train: Any
    evaluation: Any = None


class Training(ABC):
    """A fit in progress.

    Attributes
    ----------
    rounds, max_rounds:
        Boosting rounds done, and the most there will be.
    """

    rounds: int = 0
    max_rounds: int = 1

    @abstractmethod
    def advance(self, rounds: int) -> None:
        """Train `rounds` more rounds, or as many as are left."""

    @abstractmethod
    def predictions(self) -> Float64Array:
        """Predictions (m,) for the evaluation rows with all rounds done so far."""

    @abstractmethod
    def model(self, rounds: int) -> FittedModel:
        """The model made of the first `rounds` rounds."""


@dataclass
class EarlyStopping:
    """Advance a `Training` while its error on the evaluation rows improves.

    The error is the RMSE of the predictions, for the direction task that of P(up) against 0/1 (the root of
    the Brier score). Training ends after `patience` steps of `round_step` rounds without a new best.

    It also ends where the error is not going to fall below `limit`: after `settled` rounds, and no fewer than
    the patience, if twice what the latest half of the rounds brought would not be enough. Boosting with
    learning rate η has taken in 1 − (1 − η)^r of what it can after r rounds, so that from 2 / η on another
    half brings less than the last.
    """

    training: Training
    y: Float64Array
    patience: int = 10
    round_step: int = 10
    limit: float = float("inf")
    settled: int = 0
    best_score: float = float("inf")
    best_rounds: int = 0
    best_predictions: Float64Array = field(default_factory=lambda: np.empty(0))
    _bests: list[float] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the rounds are used up, the patience is at its end or the limit is out of reach."""
        done = self.training.rounds
        return done >= self.training.max_rounds or (
            done > 0 and (done - self.best_rounds >= self.patience * self.round_step or self._hopeless)
        )

    @property
    def _hopeless(self) -> bool:
        soon = self.training.rounds < max(self.settled, self.patience * self.round_step, 2 * self.round_step)
        if soon or self.best_score < self.limit:
            return False
        latest = self._bests[len(self._bests) // 2 - 1] - self.best_score
        return self.best_score - 2 * latest >= self.limit

    def advance(self) -> float:
        """Train one step and return its RMSE."""
        self.training.advance(self.round_step)
        predictions = self.training.predictions()
        score = float(np.sqrt(np.mean((self.y - predictions) ** 2)))
        if score < self.best_score:
            self.best_score, self.best_rounds = score, self.training.rounds
            self.best_predictions = predictions
        self._bests.append(self.best_score)
        return score


def target_scale(y: Float64Array, task: Task) -> float:
    """Standard deviation of the training labels; 1 where that is 0 or the labels are 0/1."""
    deviation = float(np.std(y)) if task == "regression" else 1.0
    return deviation if deviation > 0 else 1.0
