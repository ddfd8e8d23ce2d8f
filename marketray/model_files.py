"""A model's files: as MLflow stores them, and the local copies that serving reads."""

from __future__ import annotations

import json
import shutil
import uuid
import warnings
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from marketray.errors import ModelError

__all__ = ["CACHE_MARK", "NATIVE", "is_cached", "model_document", "put_in_place", "save_pyfunc"]

NATIVE = "native"
"""Folder of a model's own files inside MLflow's."""

CACHE_MARK = ".registry.json"
"""File of a local copy that says which version of which server it is."""

_LIBRARIES = {"xgboost": ("xgboost",), "lightgbm": ("lightgbm",), "ar": ("statsmodels",)}


def save_pyfunc(path: Path, native: Path, document: Mapping[str, Any]) -> None:
    """Write MLflow's model folder: signature, requirements, code file, and the native files beside it."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs = Schema([ColSpec(DataType.double, name) for name in document["columns"]])
    needed = ("marketray", "mlflow", "numpy", *_LIBRARIES.get(document["family"], ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for an input example although the signature is given
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(Path(__file__).parent / "models" / "mlflow_model.py"),
            artifacts={NATIVE: str(native)},
            signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double)])),
            pip_requirements=[f"{name}=={installed_version(name)}" for name in needed],
        )


def model_document(folder: Path) -> dict[str, Any]:
    """The parsed ``model.json`` of a model's folder.

    Raises
    ------
    ModelError
        There is none, or it cannot be read.
    """
    try:
        document: dict[str, Any] = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError) as e:
        msg = f"{folder}: not a readable model folder ({e}); required: model.json in it"
        raise ModelError(msg, hint="run the select stage again") from e
    return document


def is_cached(target: Path, mark: Mapping[str, Any]) -> bool:
    """Whether the folder is a whole local copy of the version that `mark` describes."""
    path = target / CACHE_MARK
    return path.exists() and json.loads(path.read_text()) == mark


def put_in_place(got: Path, target: Path) -> None:
    """Rename the complete folder to its place; a copy of another server's version is moved out first."""
    if target.exists():
        old = target.with_name(f".old-{uuid.uuid4().hex}")
        target.rename(old)
        shutil.rmtree(old)
    got.rename(target)
