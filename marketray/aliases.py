"""Aliases of the registered model and the append-only record of their moves.

MLflow has no transaction over several writes, so a move is written in an order that has one commit:

1. a note of the whole move, one tag that is never written again: from here on the move has happened;
2. the aliases, each one write, and the versions' stages for those who look at them in MLflow;
3. a mark that the note is carried out.

Reading overlays the notes without a mark on MLflow's aliases, and the next move carries them out first. So a
process killed between any two writes leaves one champion, in MLflow as well as here, and no move without its
note. An alias that someone moves in MLflow itself is taken as it is and reported as unrecorded.
"""

from __future__ import annotations

import getpass
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["ALIASES", "Aliases", "Stage", "Standing", "changes_of"]

Stage = Literal["None", "Staging", "Production", "Archived"]
"""MLflow's former stages, expressed by aliases."""

ALIASES: dict[str, Stage] = {
    "champion": "Production",
    "challenger": "Staging",
    "shadow": "Staging",
    "archived": "Archived",
}
"""Aliases with the stage that a version has by them; the first that it holds counts."""

_NOTE = "marketray.move."
_DONE = "marketray.moved."
_STAGE = "marketray.stage"


@dataclass(frozen=True)
class Standing:
    """Where the aliases point now, and how they came there.

    Attributes
    ----------
    aliases:
        Version by alias.
    notes:
        The record, oldest first.
    unfinished:
        Keys of the first note that is not known to be carried out, and of all after it.
    """

    aliases: dict[str, int]
    notes: dict[str, dict[str, Any]]
    unfinished: tuple[str, ...]

    @property
    def recorded(self) -> dict[str, int | None]:
        """Version by alias as the record has it; None where the alias was taken away."""
        found: dict[str, int | None] = {}
        for note in self.notes.values():
            found.update(note["changes"])
        return found

    def stage(self, version: int) -> Stage:
        """By the aliases; Archived where it had one and has none now."""
        for alias, stage in ALIASES.items():
            if self.aliases.get(alias) == version:
                return stage
        moved = any(version in note["changes"].values() for note in self.notes.values())
        return "Archived" if moved else "None"


class Aliases:
    """The aliases of one registered model.

    Parameters
    ----------
    client, name:
        MLflow's client and the registered model's name. The methods raise MLflow's errors as they are.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name

    def read(self) -> Standing:
        """Where the aliases point; all empty where the model is not registered."""
        found = self._client.search_registered_models(f"name = '{self._name}'", max_results=1)
        if not found:
            return Standing({}, {}, ())
        tags, aliases = found[0].tags, {a: int(v) for a, v in found[0].aliases.items()}
        keys = sorted(tag.removeprefix(_NOTE) for tag in tags if tag.startswith(_NOTE))
        notes = {key: json.loads(tags[_NOTE + key]) for key in keys}
        done = [_DONE + key in tags for key in keys]
        unfinished = tuple(keys[done.index(False) :]) if not all(done) else ()
        for key in unfinished:
            aliases = _changed(aliases, notes[key]["changes"])
        return Standing(aliases, notes, unfinished)

    def move(self, alias: str, version: int, note: Mapping[str, Any]) -> dict[str, Any]:
        """Point `alias` at `version`; `note` are JSON values to record beside the move.

        A move that is recorded and in place already is only carried out to its end.

        Returns
        -------
        dict
            The note as recorded: alias, version, previous, changes, by, at, and what `note` has.
        """
        standing = self.read()
        for key in standing.unfinished:
            self._carry_out(key, standing)
        if standing.aliases.get(alias) == version == standing.recorded.get(alias):
            return next(n for n in reversed(standing.notes.values()) if n["changes"].get(alias) == version)
        key = f"{len(standing.notes) + 1:06d}-{uuid.uuid4().hex[:8]}"  # two at once do not overwrite
        whole = {
            **note,
            "alias": alias,
            "version": version,
            "previous": standing.aliases.get(alias),
            "changes": changes_of(standing.aliases, alias, version),
            "by": _user(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
        self._client.set_registered_model_tag(self._name, _NOTE + key, text)
        notes = {**standing.notes, key: whole}
        self._carry_out(key, Standing(_changed(standing.aliases, whole["changes"]), notes, (key,)))
        return whole

    def _carry_out(self, key: str, after: Standing) -> None:
        """Do what a note says, which may be done in part, and mark it."""
        changes = after.notes[key]["changes"]
        for alias, version in changes.items():
            if version is None:
                self._client.delete_registered_model_alias(self._name, alias)
            else:
                self._client.set_registered_model_alias(self._name, alias, str(version))
        for version in sorted({v for v in (*changes.values(), after.notes[key]["previous"]) if v}):
            self._client.set_model_version_tag(self._name, str(version), _STAGE, after.stage(version))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._client.set_registered_model_tag(self._name, _DONE + key, now)


def changes_of(aliases: Mapping[str, int], alias: str, version: int) -> dict[str, int | None]:
    """All aliases that change when `alias` goes to `version`: the new place of each, None where it goes away.

    A version that becomes champion gives up its other aliases; the champion before it becomes the archived
    one.
    """
    changes: dict[str, int | None] = {alias: version}
    if alias == "champion":
        changes |= {other: None for other, held in aliases.items() if other != alias and held == version}
        previous = aliases.get("champion")
        if previous not in (None, version):
            changes["archived"] = previous
    return changes


def _changed(aliases: Mapping[str, int], changes: Mapping[str, int | None]) -> dict[str, int]:
    whole = {**aliases, **changes}
    return {alias: version for alias, version in whole.items() if version is not None}


def _user() -> str:
    """Name of the user, or its number where a container knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
