"""The model registry on MLflow: versions, aliases, the promotion record, and local copies of models.

A version appears in one call, after its files are complete and with all its tags; an alias points at exactly
one version. So a process killed between any two writes leaves no half-registered version and never two
champions, and the same registration done again finds what is there by its key.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.errors import ModelError, RegistryError
from marketray.tracking import connect_tracking, experiment_id, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from marketray.settings import Settings

__all__ = ["KEY_TAG", "ModelVersion", "Registry"]

logger = logging.getLogger(__name__)

KEY_TAG = "marketray.selection_key"
"""Tag of runs and versions that identifies one registration."""

_RECORD = "marketray.promotion."
_NATIVE = "native"
_CACHE_MARK = ".registry.json"
_LIBRARIES = {"xgboost": ("xgboost",), "lightgbm": ("lightgbm",), "ar": ("statsmodels",)}


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes
    ----------
    version:
        Number, counted from 1.
    aliases:
        Names that point at it, such as champion.
    family, verdict:
        Model type, and the gate's verdict at registration.
    evidence:
        The gate's numbers, see `marketray.evaluation.gate.Evidence`.
    run_id:
        MLflow run that holds the files.
    tags:
        All tags, lineage among them.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    family: str
    verdict: str
    evidence: dict[str, Any]
    run_id: str
    tags: dict[str, str]


class Registry:
    """Versions of the settings' registered model.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached; known within seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: MlflowClient = connect_tracking(settings)
        self.name = settings.model_name

    def find(self, key: str) -> ModelVersion | None:
        """The version registered under this key, if any."""
        return next((v for v in self.list() if v.tags.get(KEY_TAG) == key), None)

    def register(
        self,
        folder: Path,
        *,
        key: str,
        evidence: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> ModelVersion:
        """Register the model in `folder` as a new version; the same key again gives the version there is.

        Parameters
        ----------
        folder:
            What `FittedModel.save` wrote, with any further files; stored as it is.
        key:
            Digest of everything the model and its verdict come from.
        evidence:
            The gate's numbers, ``verdict`` among them.
        tags:
            Lineage: data hash, catalog hash, tuning key and so on.
        parent_run_id:
            MLflow run of the tuning.

        Raises
        ------
        ModelError
            `folder` holds no model.
        RegistryError
            The server refuses, or goes away; no version appears then.
        """
        found = self.find(key)
        if found is not None:
            return found
        document = _model_document(folder)
        with translated(self._settings, f"registering {self.name}"):
            run_id, artifact_uri = self._upload(folder, document, key, parent_run_id)
            self._ensure_name()
            everything = {
                **(tags or {}),
                KEY_TAG: key,
                "marketray.family": str(document["family"]),
                "marketray.verdict": str(evidence["verdict"]),
                "marketray.evidence": json.dumps(dict(evidence), sort_keys=True),
            }
            made = self._client.create_model_version(
                self.name, source=f"{artifact_uri}/model", run_id=run_id, tags=everything
            )
        logger.info("registered %s version %s (%s)", self.name, made.version, document["family"])
        return self.resolve(int(made.version))

    def set_alias(self, alias: str, version: int, record: Mapping[str, Any] | None = None) -> None:
        """Point `alias` at `version`, after noting it in the append-only promotion record.

        The same move again, as a resumed process asks for, changes nothing and is noted once.

        Parameters
        ----------
        record:
            JSON values to note beside alias, version, the version before, user and time.
        """
        with translated(self._settings, f"setting alias {alias!r} of {self.name}"):
            aliases = self._aliases()
            notes = self.history()
            last = next((n for n in reversed(notes) if n["alias"] == alias), None)
            if last is None or last["version"] != version:
                note = {
                    **(record or {}),
                    "alias": alias,
                    "version": version,
                    "previous": aliases.get(alias),
                    "by": _user(),
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                tag = f"{_RECORD}{len(notes) + 1:06d}"
                self._client.set_registered_model_tag(self.name, tag, json.dumps(note, sort_keys=True))
            if aliases.get(alias) != version:
                self._client.set_registered_model_alias(self.name, alias, str(version))

    def history(self) -> list[dict[str, Any]]:
        """The promotion record, oldest first."""
        with translated(self._settings, f"reading {self.name}"):
            found = self._registered()
        tags = found.tags if found else {}
        return [json.loads(tags[name]) for name in sorted(tags) if name.startswith(_RECORD)]

    def list(self) -> list[ModelVersion]:
        """All versions, newest first; empty where none is registered."""
        with translated(self._settings, f"listing {self.name}"):
            aliases = self._aliases()
            rows, token = [], None
            while True:
                page = self._client.search_model_versions(f"name = '{self.name}'", page_token=token)
                rows += [self._version(row, aliases) for row in page]
                token = page.token
                if not token:
                    return sorted(rows, key=lambda v: -v.version)

    def resolve(self, which: str | int) -> ModelVersion:
        """The version with this number or alias.

        Raises
        ------
        RegistryError
            There is none.
        """
        with translated(self._settings, f"reading {self.name}"):
            aliases = self._aliases()
        versions = self.list()
        number = int(which) if str(which).isdecimal() else aliases.get(str(which))
        for found in versions:
            if found.version == number:
                return found
        known = f"versions {[v.version for v in versions]}, aliases {sorted(aliases)}"
        msg = f"{self.name}: no version or alias {which!r}; there are {known}"
        raise RegistryError(
            msg, hint="run `marketray run` to make a first version, or `marketray models list`"
        )

    def show(self, which: str | int) -> ModelVersion:
        """Same as `resolve`."""
        return self.resolve(which)

    def champion(self) -> ModelVersion | None:
        """The version with the alias champion, or None."""
        return next((v for v in self.list() if "champion" in v.aliases), None)

    def download(self, version: int) -> Path:
        """Folder with the version's native files, fetched once to ``<home>/models/<name>/<version>``.

        Raises
        ------
        RegistryError
            There is no such version, or its files cannot be fetched; nothing is left behind then.
        """
        found = self.resolve(version)
        target = self._settings.home_path / "models" / self.name / str(found.version)
        mark = {"run_id": found.run_id, "tracking": self._settings.tracking_uri.rsplit("@", 1)[-1]}
        if _is_cached(target, mark):
            return target
        with translated(self._settings, f"downloading {self.name} version {version}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
                source = f"model/artifacts/{_NATIVE}"
                got = Path(self._client.download_artifacts(found.run_id, source, scratch))
                _model_document(got)
                (got / _CACHE_MARK).write_text(json.dumps(mark))
                _put_in_place(got, target)
        return target

    def _upload(
        self, folder: Path, document: Mapping[str, Any], key: str, parent_run_id: str | None
    ) -> tuple[str, str]:
        """Store the files in the key's run, made where there is none; return (run id, artefact URI)."""
        experiment = experiment_id(self._client, self._settings)
        runs = self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        if runs:
            run = runs[0]
        else:
            tags = {KEY_TAG: key, "marketray.kind": "model"}
            if parent_run_id:
                tags["mlflow.parentRunId"] = parent_run_id
            run = self._client.create_run(experiment, tags=tags, run_name=f"model-{key[:8]}")
        with tempfile.TemporaryDirectory() as scratch:
            native = Path(scratch) / _NATIVE
            shutil.copytree(folder, native)
            _save_pyfunc(Path(scratch) / "model", native, document)
            self._client.log_artifacts(run.info.run_id, str(Path(scratch) / "model"), "model")
        self._client.set_terminated(run.info.run_id, "FINISHED")
        return str(run.info.run_id), str(run.info.artifact_uri)

    def _ensure_name(self) -> None:
        if self._registered() is None:
            self._client.create_registered_model(self.name)

    def _registered(self) -> Any:
        found = self._client.search_registered_models(f"name = '{self.name}'", max_results=1)
        return found[0] if found else None

    def _aliases(self) -> dict[str, int]:
        found = self._registered()
        return {alias: int(number) for alias, number in found.aliases.items()} if found else {}

    def _version(self, row: Any, aliases: Mapping[str, int]) -> ModelVersion:
        number, tags = int(row.version), dict(row.tags)
        return ModelVersion(
            name=self.name,
            version=number,
            aliases=tuple(sorted(a for a, v in aliases.items() if v == number)),
            family=tags.get("marketray.family", ""),
            verdict=tags.get("marketray.verdict", ""),
            evidence=json.loads(tags.get("marketray.evidence", "{}")),
            run_id=str(row.run_id),
            tags=tags,
        )


def _save_pyfunc(path: Path, native: Path, document: Mapping[str, Any]) -> None:
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
            artifacts={_NATIVE: str(native)},
            signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double)])),
            pip_requirements=[f"{name}=={installed_version(name)}" for name in needed],
        )


def _model_document(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError) as e:
        msg = f"{folder}: not a readable model folder ({e}); required: model.json in it"
        raise ModelError(msg, hint="run the select stage again") from e
    return document


def _user() -> str:
    """Name of the user, or its number where a container knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _is_cached(target: Path, mark: Mapping[str, Any]) -> bool:
    path = target / _CACHE_MARK
    return path.exists() and json.loads(path.read_text()) == mark


def _put_in_place(got: Path, target: Path) -> None:
    """Rename the complete folder to its place; a copy of another server's version is moved out first."""
    if target.exists():
        old = target.with_name(f".old-{uuid.uuid4().hex}")
        target.rename(old)
        shutil.rmtree(old)
    got.rename(target)
