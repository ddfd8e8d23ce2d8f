"""The MLflow model: code that MLflow runs around a native artefact, so that no pickle is stored or loaded.

MLflow copies this file into the model and executes it on load ("models from code"). It needs the package
marketray and the family's library, nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
import pandas as pd  # MLflow reads the annotations of `predict`

__all__ = ["NativeModel"]


class NativeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Predictions of a marketray model for a frame of its feature columns."""

    def load_context(self, context: Any) -> None:
        """Load the native artefact of the folder ``native``."""
        from marketray.models import load_model

        self._model = load_model(Path(context.artifacts["native"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> npt.NDArray[np.float64]:
        """Simple returns as fractions, or P(up) for the direction task, shape (n,).

        Parameters
        ----------
        model_input:
            The model's columns in any order, NaN where a feature has no value.
        """
        del context, params
        columns = list(self._model.columns)
        return self._model.predict(model_input[columns].to_numpy(np.float32))


mlflow.models.set_model(NativeModel())
