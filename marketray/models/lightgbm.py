"""LightGBM: leaf-wise histogram trees, stored as its text format."""

from __future__ import annotations

from collections.abc import Collection, Hashable
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
    import lightgbm

__all__ = ["LightGBM", "LightGBMModel"]


class LightGBMModel(FittedModel):
    """A fitted LightGBM booster; its leaves hold label / `target_scale`."""

    family = "lightgbm"
    artefact = "model.txt"

    def __init__(
        self,
        task: Task,
        columns: tuple[str, ...],
        params: Params,
        rounds: int,
        booster: lightgbm.Booster,
        scale: float,
    ) -> None:
        super().__init__(task, columns, params, rounds)
        self.booster = booster
        self.target_scale = scale

    def _predict(self, X: Float32Array) -> Float64Array:
        raw = self.booster.predict(X, num_threads=1)
        return np.asarray(raw, np.float64) * self.target_scale

    def _contributions(self, X: Float32Array) -> Float64Array:
        raw = self.booster.predict(X, pred_contrib=True, num_threads=1)
        return np.asarray(raw, np.float64) * self.target_scale

    def importance(self) -> dict[str, float]:
        """Share of the total gain."""
        return shares(self.columns, self.booster.feature_importance("gain").tolist())

    def _save_artefact(self, folder: Path) -> None:
        (folder / self.artefact).write_text(self.booster.model_to_string(num_iteration=-1))

    def _document(self) -> dict[str, Any]:
        return {"target_scale": self.target_scale}

    @classmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> LightGBMModel:
        """Read ``model.txt``."""
        import lightgbm

        path = folder / cls.artefact
        try:
            text = path.read_text()
            booster = lightgbm.Booster(model_str=_whole(text))
        except (lightgbm.basic.LightGBMError, OSError, ValueError) as e:
            msg = f"{path}: not a readable LightGBM model ({e})"
            raise ModelError(msg, hint="download or train the model again") from e
        return cls(
            document["task"],
            tuple(document["columns"]),
            document["params"],
            document["rounds"],
            booster,
            document["target_scale"],
        )


class LightGBMTraining(Training):
    """Boosting one tree a round on a binned `Dataset`."""

    def __init__(self, prepared: Prepared, params: dict[str, Any], threads: int, seed: int) -> None:
        import lightgbm

        self.max_rounds = int(params["n_estimators"])
        self._prepared, self._params = prepared, params
        native = {k: v for k, v in params.items() if k not in ("n_estimators", "class_weight")}
        native |= {
            "objective": "binary" if prepared.task == "direction" else "regression",
            "is_unbalance": params["class_weight"] == "balanced" and prepared.task == "direction",
            "metric": "None",
            "feature_pre_filter": False,
            "bagging_seed": seed,
            "feature_fraction_seed": seed + 1,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": threads,
            "verbosity": -1,
        }
        self._booster = lightgbm.Booster(native, prepared.train)
        if prepared.evaluation is not None:
            self._booster.add_valid(prepared.evaluation, "evaluation")

    def advance(self, rounds: int) -> None:
        """Train `rounds` more trees, or as many as are left, or until no leaf can be split."""
        for _ in range(min(rounds, self.max_rounds - self.rounds)):
            exhausted = self._booster.update()
            self.rounds += 1
            if exhausted:
                self.max_rounds = self.rounds
                return

    def predictions(self) -> Float64Array:
        """Predictions for the evaluation rows, from the booster's own prediction buffer."""
        captured: list[Float64Array] = []

        def capture(raw: Float64Array, _: Any) -> tuple[str, float, bool]:
            captured.append(np.array(raw, np.float64))
            return "captured", 0.0, False

        self._booster.eval_valid(capture)
        return captured[0] * self._prepared.target_scale

    def model(self, rounds: int) -> LightGBMModel:
        """The first `rounds` trees."""
        import lightgbm

        booster = lightgbm.Booster(model_str=self._booster.model_to_string(num_iteration=rounds))
        p = self._prepared
        return LightGBMModel(p.task, p.columns, self._params, rounds, booster, p.target_scale)


class LightGBM(Family):
    """Gradient boosted trees of LightGBM (Ke et al. 2017)."""

    name = "lightgbm"
    tasks = ("regression", "direction")
    boosted = True
    takes_fitted = True
    defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 0.05,
        "n_estimators": 800,
        "num_leaves": 128,
        "max_depth": -1,
        "min_child_samples": 20,
        "lambda_l1": 0.0,
        "lambda_l2": 0.0,
        "colsample_bytree": 0.8,
        "subsample": 0.8,
        "subsample_freq": 1,
        "min_split_gain": 0.0,
        "max_bin": 255,
        "class_weight": None,
    }

    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """All features but the one-minute return lags, which are the autoregression's."""
        return tree_columns(available)

    def preparation_key(self, params: Params) -> Hashable:
        """The number of bins."""
        return int(self.filled(params)["max_bin"])

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
        """Bin the rows into ``max_bin`` bins; the bins come from the training rows alone."""
        import lightgbm

        self.check(task, columns, X, y)
        scale = target_scale(y, task)
        native = {
            "max_bin": self.filled(params)["max_bin"],
            "feature_pre_filter": False,
            "num_threads": threads,
            "verbosity": -1,
        }
        train = lightgbm.Dataset(X, y / scale, params=native).construct()
        held_out = None
        if evaluation is not None:
            self.check(task, columns, *evaluation)
            held_out = lightgbm.Dataset(
                evaluation[0], evaluation[1] / scale, reference=train, params=native
            ).construct()
        return Prepared(columns, task, scale, float(np.mean(y / scale)), train, held_out)

    def start(
        self, prepared: Prepared, params: Params, *, threads: int = 1, seed: int = 0, device: Device = "cpu"
    ) -> Training:
        """Begin boosting, on the CPU: LightGBM's wheels have no CUDA."""
        del device
        return LightGBMTraining(prepared, self.filled(params), threads, seed)


def _whole(text: str) -> str:
    if "end of trees" not in text:  # LightGBM itself may crash on a truncated file
        msg = "it ends before 'end of trees'"
        raise ValueError(msg)
    return text
