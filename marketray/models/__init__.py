"""Model families behind one interface; see `marketray.models.base`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marketray.errors import ModelError
from marketray.models.base import FORMAT, Family, FittedModel
from marketray.models.extended import ExtendedModel

__all__ = ["FAMILY_NAMES", "MODEL_CODE", "Family", "FittedModel", "get_family", "load_model", "model_class"]

FAMILY_NAMES = ("xgboost", "lightgbm", "ar", "zero", "training_mean", "last_return")
"""Every family that `get_family` knows; the first three are tuned."""

MODEL_CODE = ("marketray.models", "marketray.features.fits", "marketray.features.fitted")
"""Modules whose code decides what a fit gives."""


def get_family(name: str) -> Family:
    """The family called `name`.

    Raises
    ------
    ModelError
        There is no such family.
    """
    return _classes(name)[0]()


def model_class(family: str) -> type[FittedModel]:
    """The class of the models that `family` fits.

    Raises
    ------
    ModelError
        There is no such family.
    """
    return _classes(family)[1]


def load_model(folder: Path) -> FittedModel:
    """The model that `FittedModel.save` wrote into `folder`.

    Raises
    ------
    ModelError
        The folder holds no model, one of another format version, or a damaged one.
    """
    path = Path(folder) / "model.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        version, family = document["format"], document["family"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        msg = f"{path}: not a readable model description ({type(e).__name__}: {e})"
        raise ModelError(msg, hint="give the folder that holds model.json") from e
    if version != FORMAT:
        msg = f"{path}: format={version!r}; required: {FORMAT}"
        raise ModelError(msg, hint="train the model again with this version of marketray")
    try:
        kind = ExtendedModel if "fitted" in document else model_class(family)
        return kind.load(Path(folder), document)
    except KeyError as e:
        msg = f"{path}: lacks the key {e}"
        raise ModelError(msg, hint="download or train the model again") from e


def _classes(name: str) -> tuple[type[Family], type[FittedModel]]:
    if name == "xgboost":
        from marketray.models.xgboost import XGBoost, XGBoostModel

        return XGBoost, XGBoostModel
    if name == "lightgbm":
        from marketray.models.lightgbm import LightGBM, LightGBMModel

        return LightGBM, LightGBMModel
    if name == "ar":
        from marketray.models.autoregression import Autoregression, AutoregressionModel

        return Autoregression, AutoregressionModel
    from marketray.models import baselines

    families: dict[str, type[Family]] = {
        "zero": baselines.Zero,
        "training_mean": baselines.TrainingMean,
        "last_return": baselines.LastReturn,
    }
    if name in families:
        return families[name], baselines.BaselineModel
    msg = f"family={name!r}; required: one of {list(FAMILY_NAMES)}"
    raise ModelError(msg)
