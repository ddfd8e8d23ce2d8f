"""The model registry on MLflow: versions, their aliases and stages, and local copies of models.

A version appears in one call, after its files are complete and with all its tags; an alias points at exactly
one version and moves with its note in the record (`marketray.aliases`). So a process killed between any two
writes leaves no half-registered version and never two champions, and the same registration done again finds
what is there by its key.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.aliases import Aliases, Stage, Standing
from marketray.errors import RegistryError
from marketray.model_files import (
    CACHE_MARK,
    NATIVE,
    is_cached,
    model_document,
    put_in_place,
    save_pyfunc,
)
from marketray.tracking import connect_tracking, experiment_id, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from marketray.settings import Settings

__all__ = ["KEY_TAG", "ModelVersion", "Registry", "UnknownVersionError"]

logger = logging.getLogger(__name__)

KEY_TAG = "marketray.selection_key"
"""Tag of runs and versions that identifies one registration."""

_LINEAGE = ("run", "data_hash", "catalog_hash", "code_hash", "revision", "tuning_key")
_NUMBERS = ("verdict", "r2_oos", "p_value", "champion_version", "champion_p_value", "k", "alpha")


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
    stage:
        Of its life: None, Staging, Production or Archived, see `marketray.aliases`.
    created_at:
        When it was registered, ISO 8601, UTC.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    family: str
    verdict: str
    evidence: dict[str, Any]
    run_id: str
    tags: dict[str, str]
    stage: Stage = "None"
    created_at: str = ""


class UnknownVersionError(RegistryError):
    """The model has no version of this number or alias."""


class Registry:
    """Versions of one registered model.

    Parameters
    ----------
    settings:
        Name the tracking server, and the model.
    name:
        Another model of the same server.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached; known within seconds.
    """

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        self._settings = settings
        self._client: MlflowClient = connect_tracking(settings)
        self.name = name or settings.model_name
        self._moves = Aliases(self._client, self.name)

    def names(self) -> list[str]:
        """All models of this server that selections have registered, in alphabetical order."""
        with translated(self._settings, "listing the registered models"):
            return sorted({row.name for row in self._search(f"tags.`{KEY_TAG}` LIKE '%'")})

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
        document = model_document(folder)
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

    def set_alias(self, alias: str, version: int, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Point `alias` at `version` and note it in the append-only record, which is one step.

        The same move again, as a resumed process asks for, changes nothing and is noted once.

        Parameters
        ----------
        record:
            JSON values to note beside who, when, the version before, its lineage and the gate's numbers.

        Returns
        -------
        dict
            The note in the record.

        Raises
        ------
        RegistryError
            There is no such version, or the server refuses or goes away.
        """
        found = self.resolve(version)
        lineage: dict[str, Any] = {name: found.tags.get(f"marketray.{name}") for name in _LINEAGE}
        lineage["trials"] = json.loads(found.tags.get("marketray.trials", "null"))
        numbers = {name: found.evidence.get(name) for name in _NUMBERS}
        with translated(self._settings, f"setting alias {alias!r} of {self.name}"):
            return self._moves.move(alias, version, {**lineage, **numbers, **(record or {})})

    def standing(self) -> Standing:
        """Where the aliases point, with the record of how they came there."""
        with translated(self._settings, f"reading {self.name}"):
            return self._moves.read()

    def history(self) -> list[dict[str, Any]]:
        """The promotion record, oldest first."""
        return list(self.standing().notes.values())

    def list(self) -> list[ModelVersion]:
        """All versions, newest first; empty where none is registered."""
        standing = self.standing()
        with translated(self._settings, f"listing {self.name}"):
            found = [self._version(row, standing) for row in self._search(f"name = '{self.name}'")]
        return sorted(found, key=lambda v: -v.version)

    def resolve(self, which: str | int) -> ModelVersion:
        """The version with this number or alias.

        Raises
        ------
        UnknownVersionError
            There is none.
        """
        versions = self.list()
        for found in versions:
            if which in found.aliases or str(which) == str(found.version):
                return found
        msg = f"{self.name}: no version or alias {which!r}; required: one that is registered"
        raise UnknownVersionError(msg, hint=self._known(versions))

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
        if is_cached(target, mark):
            return target
        with translated(self._settings, f"downloading {self.name} version {version}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
                source = f"model/artifacts/{NATIVE}"
                got = Path(self._client.download_artifacts(found.run_id, source, scratch))
                model_document(got)
                (got / CACHE_MARK).write_text(json.dumps(mark))
                put_in_place(got, target)
        return target

    def _search(self, query: str) -> Iterator[Any]:
        """MLflow's rows of the versions that `query` describes, page by page."""
        token = None
        while True:
            page = self._client.search_model_versions(query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _known(self, versions: Sequence[ModelVersion]) -> str:
        """What there is to choose from."""
        if versions:
            numbers = _some([str(found.version) for found in versions])
            held = sorted(
                f"{alias} (version {found.version})" for found in versions for alias in found.aliases
            )
            return f"there are versions {numbers}; aliases {', '.join(held) or 'none'}"
        others = self.names()
        if others:
            return f"there are models {_some(others)}; name the settings of one with --config FILE"
        return "nothing is registered yet: `marketray run` makes a first version"

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
            native = Path(scratch) / NATIVE
            shutil.copytree(folder, native)
            save_pyfunc(Path(scratch) / "model", native, document)
            self._client.log_artifacts(run.info.run_id, str(Path(scratch) / "model"), "model")
        self._client.set_terminated(run.info.run_id, "FINISHED")
        return str(run.info.run_id), str(run.info.artifact_uri)

    def _ensure_name(self) -> None:
        if not self._client.search_registered_models(f"name = '{self.name}'", max_results=1):
            self._client.create_registered_model(self.name)

    def _version(self, row: Any, standing: Standing) -> ModelVersion:
        number, tags = int(row.version), dict(row.tags)
        return ModelVersion(
            name=self.name,
            version=number,
            aliases=tuple(sorted(a for a, v in standing.aliases.items() if v == number)),
            family=tags.get("marketray.family", ""),
            verdict=tags.get("marketray.verdict", ""),
            evidence=json.loads(tags.get("marketray.evidence", "{}")),
            run_id=str(row.run_id),
            tags=tags,
            stage=standing.stage(number),
            created_at=datetime.fromtimestamp(row.creation_timestamp / 1e3, UTC).isoformat(
                timespec="seconds"
            ),
        )


def _some(texts: Sequence[str], most: int = 10) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
