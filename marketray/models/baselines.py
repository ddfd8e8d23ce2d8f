"""Naive forecasts that every model has to beat: zero, the training mean, the last return."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from marketray.errors import ModelError
from marketray.models.base import (
    Device,
    Evaluation,
    Family,
    FittedModel,
    Float32Array,
    Float64Array,
    Params,
    Task,
)
from marketray.models.columns import shares
from marketray.models.training import Prepared, Training

__all__ = ["BaselineModel", "LastReturn", "TrainingMean", "Zero"]


class BaselineModel(FittedModel):
    """constant + slope · (the first column); the whole model is in ``model.json``."""

    family: ClassVar[str] = "zero"

    def __init__(
        self, family: str, task: Task, columns: tuple[str, ...], params: Params, constant: float
    ) -> None:
        super().__init__(task, columns, params, 1)
        self.family = family  # type: ignore[misc]  # one class serves three families
        self.constant = constant

    def _predict(self, X: Float32Array) -> Float64Array:
        if self.family != "last_return":
            return np.full(len(X), self.constant)
        last = X[:, self.columns.index(self.params["column"])].astype(np.float64)
        if np.isnan(last).any():
            msg = f"last_return: {self.params['column']} holds NaN; required: a value in every row"
            raise ModelError(msg)
        return last

    def _contributions(self, X: Float32Array) -> Float64Array:
        out = np.zeros((len(X), len(self.columns) + 1))
        prediction = self._predict(X)
        if self.family == "last_return":
            out[:, self.columns.index(self.params["column"])] = prediction
        else:
            out[:, -1] = _log_odds(prediction) if self.task == "direction" else prediction
        return out

    def importance(self) -> dict[str, float]:
        """All on the last return's column; zeros for the constants."""
        used = self.params.get("column")
        return shares(self.columns, [1.0 if c == used else 0.0 for c in self.columns])

    def _document(self) -> dict[str, Any]:
        return {"constant": self.constant}

    @classmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> BaselineModel:
        """Rebuild from ``model.json``."""
        del folder
        columns = tuple(document["columns"])
        return cls(document["family"], document["task"], columns, document["params"], document["constant"])


class _BaselineTraining(Training):
    def __init__(self, model: BaselineModel, held_out: Float32Array | None) -> None:
        self._model, self._held_out = model, held_out

    def advance(self, rounds: int) -> None:
        del rounds
        self.rounds = 1

    def predictions(self) -> Float64Array:
        if self._held_out is None:
            msg = f"{self._model.family}: no evaluation rows were given; required: evaluation=(X, y)"
            raise ModelError(msg)
        return self._model.predict(self._held_out)

    def model(self, rounds: int) -> BaselineModel:
        del rounds
        return self._model


class _Baseline(Family):
    tasks: ClassVar[tuple[Task, ...]] = ("regression", "direction")
    defaults: ClassVar[dict[str, Any]] = {}

    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """No column."""
        del available
        return ()

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
        """Check the rows."""
        del threads
        self.filled(params)
        self.check(task, columns, X, y)
        if evaluation is not None:
            self.check(task, columns, *evaluation)
        held_out = None if evaluation is None else evaluation[0]
        return Prepared(columns, task, 1.0, float(np.mean(y)), None, held_out)

    def start(
        self, prepared: Prepared, params: Params, *, threads: int = 1, seed: int = 0, device: Device = "cpu"
    ) -> Training:
        """Nothing is learned but a mean."""
        del threads, seed, device
        filled = self.filled(params)
        model = BaselineModel(
            self.name, prepared.task, prepared.columns, filled, self._constant(prepared, filled)
        )
        return _BaselineTraining(model, prepared.evaluation)

    def _constant(self, prepared: Prepared, params: dict[str, Any]) -> float:
        raise NotImplementedError


class Zero(_Baseline):
    """The price stays: return 0, P(up) 0.5."""

    name = "zero"

    def _constant(self, prepared: Prepared, params: dict[str, Any]) -> float:
        del params
        return 0.5 if prepared.task == "direction" else 0.0


class TrainingMean(_Baseline):
    """The mean label of the training rows: the drift, or the share of ups."""

    name = "training_mean"

    def _constant(self, prepared: Prepared, params: dict[str, Any]) -> float:
        del params
        return prepared.target_mean


class LastReturn(_Baseline):
    """The return of the last h minutes repeats itself."""

    name = "last_return"
    tasks = ("regression",)
    defaults: ClassVar[dict[str, Any]] = {"column": "return_30"}

    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """All trailing returns ``return_<minutes>``; ``column`` says which one is repeated."""
        return tuple(c for c in available if re.fullmatch(r"return_\d+", c))

    def _constant(self, prepared: Prepared, params: dict[str, Any]) -> float:
        if params["column"] not in prepared.columns:
            msg = f"last_return: column={params['column']!r} is not among the columns {prepared.columns}"
            raise ModelError(msg, hint="keep the feature that is the trailing return over the horizon")
        return 0.0


def _log_odds(p: Float64Array) -> Float64Array:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
