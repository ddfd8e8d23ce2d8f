"""The one interface behind which every model family stands.

A `Family` knows how to fit; a `FittedModel` knows how to predict, explain and store itself in a native,
safe format (never a pickle). Tuning drives a family in smaller steps (`marketray.models.training`):
`Family.prepare` bins a fold's rows once, `Family.start` begins a `Training` on them, and `EarlyStopping`
advances it round by round. `fit` is these three in a row.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from marketray.errors import ModelError
from marketray.models.training import EarlyStopping, Prepared, Training

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FORMAT",
    "Device",
    "Evaluation",
    "Family",
    "FittedModel",
    "Float32Array",
    "Float64Array",
    "Params",
    "Task",
]

FORMAT = 1
"""Version of the layout of ``model.json``."""

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Params = Mapping[str, Any]
Task = Literal["regression", "direction"]
Device = Literal["cpu", "cuda"]
Evaluation = tuple[Float32Array, Float64Array]


class FittedModel(ABC):
    """A model that predicts, explains and stores itself.

    Parameters
    ----------
    task:
        ``regression``: predictions are simple returns, fractions. ``direction``: P(label > 0).
    columns:
        Names of the stored columns of every X given to this model, in order.
    params:
        The parameters it was fitted with, defaults filled in.
    rounds:
        Boosting rounds in use; 1 for models that are not boosted.
    """

    family: ClassVar[str]
    artefact: ClassVar[str | None] = None

    def __init__(self, task: Task, columns: tuple[str, ...], params: Params, rounds: int) -> None:
        self.task = task
        self.columns = columns
        self.params = dict(params)
        self.rounds = rounds

    def predict(self, X: Float32Array) -> Float64Array:
        """Predictions (n,) for X (n, p): returns as fractions, or P(up) for the direction task.

        Raises
        ------
        ModelError
            X does not have this model's columns, or holds an infinite value.
        """
        return self._predict(self._checked(X))

    def contributions(self, X: Float32Array) -> Float64Array:
        """Contribution of every column of `learned` and, last, the bias: (n, len(learned) + 1).

        A row sums to the raw prediction: the return, or the log-odds of P(up) for the direction task.
        """
        return self._contributions(self._checked(X))

    @property
    def learned(self) -> tuple[str, ...]:
        """The columns it learned from: those of X, unless it makes some itself."""
        return self.columns

    @abstractmethod
    def importance(self) -> dict[str, float]:
        """Share of every column of `learned`; sums to 1, or all 0 if the model learned nothing."""

    def save(self, folder: Path) -> None:
        """Write the native artefact and ``model.json`` into `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        self._save_artefact(folder)
        document = {
            "format": FORMAT,
            "family": self.family,
            "task": self.task,
            "columns": list(self.columns),
            "params": self.params,
            "rounds": self.rounds,
            "artefact": self.artefact,
            **self._document(),
        }
        (folder / "model.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> FittedModel:
        """Read a model back; `document` is the parsed ``model.json``."""

    @abstractmethod
    def _predict(self, X: Float32Array) -> Float64Array: ...

    @abstractmethod
    def _contributions(self, X: Float32Array) -> Float64Array: ...

    def _save_artefact(self, folder: Path) -> None:
        """Write what does not fit into ``model.json``; nothing by default."""
        del folder

    def _document(self) -> dict[str, Any]:
        """Further keys of ``model.json``."""
        return {}

    def _checked(self, X: Float32Array) -> Float32Array:
        if X.ndim != 2 or X.shape[1] != len(self.columns):
            msg = (
                f"X has shape {X.shape}; required: (n, {len(self.columns)}), one column for each of `columns`"
            )
            raise ModelError(msg, hint="select the model's columns, in their order, before predicting")
        X = np.ascontiguousarray(X, np.float32)
        if np.isinf(X).any():
            msg = f"X holds {int(np.isinf(X).sum())} infinite values; required: finite, or NaN where missing"
            raise ModelError(msg, hint="give NaN where a feature has no value")
        return X


class Family(ABC):
    """How to fit one kind of model."""

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    defaults: ClassVar[dict[str, Any]]
    boosted: ClassVar[bool] = False
    takes_fitted: ClassVar[bool] = False  # whether it learns from fitted features too

    @abstractmethod
    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """The columns this family learns from, out of those there are."""

    @abstractmethod
    def prepare(
        self,
        params: Params,
        columns: tuple[str, ...],
        X: Float32Array,
        y: Float64Array,
        *,
        task: Task = "regression",
        threads: int = 1,
        evaluation: Evaluation | None = None,
    ) -> Prepared:
        """Check the rows and put them into the family's own form (binned, for trees)."""

    @abstractmethod
    def start(
        self, prepared: Prepared, params: Params, *, threads: int = 1, seed: int = 0, device: Device = "cpu"
    ) -> Training:
        """Begin a fit on prepared rows; `device` is for families that can use another than the CPU."""

    def preparation_key(self, params: Params) -> Hashable:
        """Trials with equal keys can share one `Prepared`."""
        del params
        return ()

    def with_rounds(self, params: Params, rounds: int) -> dict[str, Any]:
        """`params` with the number of boosting rounds fixed, for a refit without evaluation rows."""
        return {**params, "n_estimators": rounds} if self.boosted else dict(params)

    def fit(
        self,
        params: Params,
        columns: tuple[str, ...],
        X: Float32Array,
        y: Float64Array,
        *,
        task: Task = "regression",
        threads: int = 1,
        seed: int = 0,
        evaluation: Evaluation | None = None,
        on_step: Callable[[int, float], bool] | None = None,
        patience: int = 10,
        round_step: int = 10,
    ) -> FittedModel:
        """Fit on X (n, p) and y (n,).

        Parameters
        ----------
        params:
            Parameters of the family; `defaults` where not given. ``n_estimators`` caps the rounds.
        columns:
            Names of the columns of X.
        y:
            Simple returns as fractions; 0 and 1 for the direction task.
        evaluation:
            Later rows (X, y) for early stopping; without them all ``n_estimators`` rounds are trained.
        on_step:
            Called with (rounds, RMSE on the evaluation rows) after every step; training ends where it
            returns False.
        patience, round_step:
            End after `patience` steps of `round_step` rounds without a new best.

        Raises
        ------
        ModelError
            A parameter, the task, a shape or a value is not usable.
        """
        prepared = self.prepare(params, columns, X, y, task=task, threads=threads, evaluation=evaluation)
        training = self.start(prepared, params, threads=threads, seed=seed)
        if evaluation is None:
            training.advance(training.max_rounds)
            return training.model(training.rounds)
        stopping = EarlyStopping(training, evaluation[1], patience, round_step)
        while not stopping.finished:
            score = stopping.advance()
            if on_step is not None and not on_step(training.rounds, score):
                break
        return training.model(stopping.best_rounds)

    def filled(self, params: Params) -> dict[str, Any]:
        """`params` with the defaults filled in.

        Raises
        ------
        ModelError
            A parameter is not one of this family's.
        """
        unknown = sorted(set(params) - set(self.defaults))
        if unknown:
            msg = f"{self.name}: unknown parameters {unknown}; required: some of {sorted(self.defaults)}"
            raise ModelError(msg)
        return {**self.defaults, **params}

    def check(self, task: Task, columns: tuple[str, ...], X: Float32Array, y: Float64Array) -> None:
        """Refuse what cannot be fitted; see `fit`."""
        if task not in self.tasks:
            msg = f"{self.name}: task={task!r}; required: one of {list(self.tasks)}"
            raise ModelError(msg)
        if X.ndim != 2 or X.shape[1] != len(columns) or len(X) != len(y):
            msg = (
                f"{self.name}: X has shape {X.shape}, y {y.shape}, with {len(columns)} columns; required: "
                f"X (n, {len(columns)}) and y (n,)"
            )
            raise ModelError(msg)
        if len(y) < 2 or not np.isfinite(y).all():
            msg = f"{self.name}: y has {len(y)} rows, {int((~np.isfinite(y)).sum())} of them not finite; "
            raise ModelError(msg + "required: at least 2 rows, all finite")
        if task == "direction" and not np.isin(y, (0.0, 1.0)).all():
            msg = f"{self.name}: y holds values other than 0 and 1; required: 0 and 1 for task='direction'"
            raise ModelError(msg)
        if np.isinf(X).any():
            msg = f"{self.name}: X holds infinite values; required: finite, or NaN where missing"
            raise ModelError(msg)
