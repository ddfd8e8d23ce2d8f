"""Registering the winner, and placing it: the alias of its verdict, where that still holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from marketray.dataset.load import dataset_content
from marketray.evaluation.candidates import put_folder
from marketray.evaluation.outcome import model_card
from marketray.evaluation.uncertainty import UNCERTAINTY_FILE
from marketray.hashing import code_hash
from marketray.models import load_model
from marketray.promotion import outdated
from marketray.tracking import open_parent_run

if TYPE_CHECKING:
    from marketray.dataset.splits import Split
    from marketray.evaluation.candidates import Tuned
    from marketray.evaluation.gate import Evidence
    from marketray.evaluation.uncertainty import Uncertainty
    from marketray.registry import ModelVersion, Registry
    from marketray.settings import Settings

__all__ = ["Placement", "code_revision", "complete_folder", "place", "placement", "register_winner"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """What a verdict did for its version in the registry.

    Attributes
    ----------
    alias:
        The alias that goes to the version; None: none.
    declined:
        Why the alias that the verdict gives does not; None where it does, or the verdict gives none.
    """

    alias: str | None
    declined: str | None = None


def register_winner(
    settings: Settings,
    registry: Registry,
    folder: Path,
    key: str,
    split: Split,
    tuned: Tuned,
    winner: str,
    evidence: Evidence,
    trials: Mapping[str, int] | None = None,
) -> ModelVersion:
    """Register the model in `folder` under `key`, once and without an alias yet.

    Parameters
    ----------
    folder:
        The winner's native files with its card and evidence.
    key:
        Digest of the selection; the same key again finds the same version.
    split, tuned:
        The dataset and the tuning it comes from, for its lineage.
    winner:
        Its family.
    trials:
        How many were made to find it: ``counted``, ``pruned``, ``earlier``.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached.
    """
    tags = {
        "marketray.run": settings.name,
        "marketray.instrument": settings.instrument,
        "marketray.data_hash": dataset_content(settings, ("train", "validation", "test")),
        "marketray.catalog_hash": str(split.detail["catalog_hash"]),
        "marketray.tuning_key": tuned.tuning_key,
        "marketray.trial_id": tuned.candidates[winner].trial_id,
        "marketray.code_hash": code_hash("marketray"),
        "marketray.revision": code_revision(),
        "marketray.test_rmse_pct": str(_card(folder)["test_rmse_pct"]),
        **({"marketray.trials": json.dumps(dict(trials), sort_keys=True)} if trials else {}),
    }
    parent = open_parent_run(settings, tuned.tuning_key, {})
    return registry.register(folder, key=key, evidence=evidence.to_json(), tags=tags, parent_run_id=parent)


def placement(registry: Registry, version: int, evidence: Evidence) -> Placement:
    """Where `evidence` puts the version as the registry stands; moves nothing.

    A verdict is about the champion of its time, and gives its alias once. A selection that is done again
    (its files were lost, or the settings went back to what they were) finds its version with its old
    verdict, and another version may have been promoted, or rolled back to, since.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached.
    """
    if evidence.alias is None:
        return Placement(None)
    reason = _superseded(registry, version, evidence)
    return Placement(evidence.alias) if reason is None else Placement(None, reason)


def place(registry: Registry, version: int, evidence: Evidence) -> Placement:
    """Give the version the alias of its verdict, where that still holds; where the version is then.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached.
    """
    planned = placement(registry, version, evidence)
    if planned.alias is None:
        if planned.declined is not None:
            logger.warning("select: version %d gets no alias: %s", version, planned.declined)
        return planned
    registry.set_alias(planned.alias, version, {"action": "select"})
    return placement(registry, version, evidence)


def code_revision() -> str:
    """Git commit of the checkout that this package runs from, or the version of an installed package."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        from mlflow.utils.git_utils import get_git_commit

        commit = get_git_commit(str(root))
        if commit is not None:
            return str(commit)
    return f"marketray {installed_version('marketray')}"


def _superseded(registry: Registry, version: int, evidence: Evidence) -> str | None:
    """Why the alias that `evidence` gives must not move to `version` any more; None where it may, or did."""
    alias, standing = evidence.alias, registry.standing()
    if standing.aliases.get(str(alias)) == version:
        return None
    if standing.aliases.get("champion") == version:
        return "it is the champion"
    if alias == "champion":
        reason = outdated(registry, version, evidence.champion_version)
        if reason is not None:
            return reason
    holders = [note["version"] for note in standing.notes.values() if note["alias"] == alias]
    if version not in holders:
        return None
    gone = f"which went on to version {holders[-1]}" if holders[-1] != version else "and gave it up"
    return f"it had the alias {alias} already, {gone}"


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "serving.json").read_text())
    return card


def complete_folder(
    settings: Settings,
    split: Split,
    winner: str,
    source: Path,
    test_rmse_pct: float,
    evidence: Evidence,
    uncertainty: Uncertainty,
) -> Path:
    """The winner's native folder with all that is registered and served beside the model.

    That is its card, its evidence, the gate it was judged by, and its uncertainty.
    """
    columns = load_model(source).columns
    card = model_card(settings, split, columns, winner, test_rmse_pct, evidence)
    files = {p.name: p.read_bytes() for p in sorted(source.iterdir())}
    files["gate.yaml"] = yaml.safe_dump(settings.gate.model_dump(mode="json", exclude={"file"})).encode()
    documents = {
        "serving.json": card,
        "evidence.json": evidence.to_json(),
        UNCERTAINTY_FILE: uncertainty.to_json(),
    }
    for name, value in documents.items():
        files[name] = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
    folder = settings.run_path / "models" / "selected"
    put_folder(folder, files)
    return folder
