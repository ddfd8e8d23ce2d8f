"""XGBoost: histogram trees, stored as UBJ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
from marketray.models.columns import shares, tree_columns
from marketray.models.training import Prepared, Training, target_scale

if TYPE_CHECKING:
    import xgboost

__all__ = ["XGBoost", "XGBoostModel"]

_NAMES = {"learning_rate": "eta"}
_MAX_BIN = 256


class XGBoostModel(FittedModel):
    """A fitted XGBoost booster; its leaves hold label / `target_scale`."""

    family = "xgboost"
    artefact = "model.ubj"

    def __init__(
        self,
        task: Task,
        columns: tuple[str, ...],
        params: Params,
        rounds: int,
        booster: xgboost.Booster,
        scale: float,
    ) -> None:
        super().__init__(task, columns, params, rounds)
        self.booster = booster
        self.target_scale = scale

    def _predict(self, X: Float32Array) -> Float64Array:
        raw = self.booster.inplace_predict(X, validate_features=False)
        return np.asarray(raw, np.float64) * self.target_scale

    def _contributions(self, X: Float32Array) -> Float64Array:
        import xgboost

        raw = self.booster.predict(xgboost.DMatrix(X, nthread=1), pred_contribs=True)
        return np.asarray(raw, np.float64) * self.target_scale

    def importance(self) -> dict[str, float]:
        """Share of the total gain."""
        gain = self.booster.get_score(importance_type="total_gain")
        return shares(
            self.columns, [np.asarray(gain.get(f"f{i}", 0.0)).item() for i in range(len(self.columns))]
        )

    def _save_artefact(self, folder: Path) -> None:
        self.booster.save_model(folder / self.artefact)

    def _document(self) -> dict[str, Any]:
        return {"target_scale": self.target_scale}

    @classmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> XGBoostModel:
        """Read ``model.ubj``; predictions use one thread."""
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(folder / cls.artefact)
        except (xgboost.core.XGBoostError, OSError) as e:
            msg = f"{folder / cls.artefact}: not a readable XGBoost model ({str(e).splitlines()[0]})"
            raise ModelError(msg, hint="download or train the model again") from e
        return cls(
            document["task"],
            tuple(document["columns"]),
            document["params"],
            document["rounds"],
            booster,
            document["target_scale"],
        )


class XGBoostTraining(Training):
    """Boosting one tree a round on a `QuantileDMatrix`.

    Raises
    ------
    ModelError
        It is to fit on ``cuda``, and there is no such device.
    """

    def __init__(
        self, prepared: Prepared, params: dict[str, Any], threads: int, seed: int, device: Device
    ) -> None:
        import xgboost

        self.max_rounds = int(params["n_estimators"])
        self._prepared, self._params = prepared, params
        logistic = prepared.task == "direction"
        native = {_NAMES.get(k, k): v for k, v in params.items() if k != "n_estimators"}
        native |= {
            "objective": "binary:logistic" if logistic else "reg:squarederror",
            "base_score": float(np.clip(prepared.target_mean, 1e-6, 1 - 1e-6))
            if logistic
            else prepared.target_mean,
            "tree_method": "hist",
            "device": device,
            "max_bin": _MAX_BIN,
            "nthread": threads,
            "seed": seed,
            "verbosity": 0,
        }
        cache = [prepared.train] if prepared.evaluation is None else [prepared.train, prepared.evaluation]
        self._booster = xgboost.Booster(native, cache)
        if device == "cuda":
            _require_cuda(self._booster)

    def advance(self, rounds: int) -> None:
        """Train `rounds` more trees, or as many as are left."""
        for _ in range(min(rounds, self.max_rounds - self.rounds)):
            self._booster.update(self._prepared.train, self.rounds)
            self.rounds += 1

    def predictions(self) -> Float64Array:
        """Predictions for the evaluation rows, from the booster's own prediction cache."""
        raw = self._booster.predict(self._prepared.evaluation)
        return np.asarray(raw, np.float64) * self._prepared.target_scale

    def model(self, rounds: int) -> XGBoostModel:
        """The first `rounds` trees."""
        booster = self._booster[:rounds]
        booster.set_param({"nthread": 1, "device": "cpu"})
        p = self._prepared
        params = {**self._params, "n_estimators": self.max_rounds}
        return XGBoostModel(p.task, p.columns, params, rounds, booster, p.target_scale)


def _require_cuda(booster: xgboost.Booster) -> None:
    """Refuse the CPU, which XGBoost turns to with a warning where it finds no GPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*(No visible GPU|changed from GPU to CPU)")
        used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not used.startswith("cuda"):
        msg = f"device='cuda', but XGBoost uses {used!r}: it finds no CUDA device in this process"
        raise ModelError(msg, hint="see nvidia-smi on that node, or fit on the CPU")


class XGBoost(Family):
    """Gradient boosted trees of XGBoost (Chen and Guestrin 2016)."""

    name = "xgboost"
    tasks = ("regression", "direction")
    boosted = True
    takes_fitted = True
    defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 0.1,
        "n_estimators": 200,
        "max_depth": 6,
        "min_child_weight": 1.0,
        "gamma": 0.0,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "reg_alpha": 0.0,
        "reg_lambda": 1.0,
    }

    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """All features but the one-minute return lags, which are the autoregression's."""
        return tree_columns(available)

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
        """Bin the rows into 256 quantile bins; the bins come from the training rows alone."""
        import xgboost

        self.filled(params)
        self.check(task, columns, X, y)
        scale = target_scale(y, task)
        train = xgboost.QuantileDMatrix(X, y / scale, max_bin=_MAX_BIN, nthread=threads)
        held_out = None
        if evaluation is not None:
            self.check(task, columns, *evaluation)
            held_out = xgboost.QuantileDMatrix(
                evaluation[0], evaluation[1] / scale, ref=train, max_bin=_MAX_BIN, nthread=threads
            )
        return Prepared(columns, task, scale, float(np.mean(y / scale)), train, held_out)

    def start(
        self, prepared: Prepared, params: Params, *, threads: int = 1, seed: int = 0, device: Device = "cpu"
    ) -> Training:
        """Begin boosting; on ``cuda`` XGBoost copies the binned rows to the GPU."""
        return XGBoostTraining(prepared, self.filled(params), threads, seed, device)
