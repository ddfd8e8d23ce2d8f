"""Moving a registered model through its life by hand: promote, roll back; the gate's verdict decides.

A version is registered (None), stands by as challenger or shadow (Staging), serves as champion (Production)
and is Archived when another has taken its place. `marketray select` moves what its own verdict allows; the
functions here do so later, on somebody's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from marketray.errors import RefusedError, RegistryError, SettingsError

if TYPE_CHECKING:
    from marketray.registry import ModelVersion, Registry

__all__ = ["PROMOTABLE", "champions", "forbidden", "outdated", "promote", "roll_back"]

PROMOTABLE = ("champion", "challenger", "shadow")
"""Aliases that `promote` gives."""

_REASON_LIMIT = 1_000  # characters; a database of MLflow's stores notes of 5,000 in all
_OVERRULED_LIMIT = 1_500


def promote(
    registry: Registry, which: str | int, alias: str = "champion", *, force: bool = False, reason: str = ""
) -> dict[str, Any]:
    """Give `alias` to a version if its evidence allows it.

    Parameters
    ----------
    which:
        Number or alias of the version.
    alias:
        One of `PROMOTABLE`.
    force:
        Move it against the evidence; then `reason` says why, and both stand in the record.

    Returns
    -------
    dict
        The note of the move, with ``changed``: False where the version has the alias already, and the note
        is that of the move that gave it.

    Raises
    ------
    RefusedError
        The gate's verdict forbids it, and `force` is not given.
    RegistryError
        There is no such version, or it is the champion and would be its own challenger.
    SettingsError
        The alias is not one of `PROMOTABLE`, `force` lacks its reason, or the reason is too long.
    """
    if alias not in PROMOTABLE:
        msg = f"alias={alias!r}; required: one of {', '.join(PROMOTABLE)}"
        raise SettingsError(msg)
    if force and not reason.strip():
        msg = "--force without --reason; required: why the evidence is overruled, for the record"
        raise SettingsError(msg)
    _check_reason(reason)
    found = registry.resolve(which)
    if alias in found.aliases:
        unrecorded = registry.standing().recorded.get(alias) != found.version  # somebody moved it in MLflow
        note = registry.set_alias(alias, found.version, {"action": "adopt", "reason": reason.strip()})
        return {**note, "changed": unrecorded}
    if "champion" in found.aliases:
        msg = f"{registry.name}: version {found.version} is the champion; required: another one as {alias}"
        raise RegistryError(msg, hint="promote another version to champion first, or roll back")
    why = forbidden(registry, found, alias)
    if why is not None and not force:
        msg = f"{registry.name}: version {found.version} may not become {alias}: {why}"
        raise RefusedError(msg, hint="--force --reason TEXT overrules it and is kept in the record")
    overruled = None if why is None else why[:_OVERRULED_LIMIT]
    record = {"action": "promote", "reason": reason.strip(), "overruled": overruled}
    return {**registry.set_alias(alias, found.version, record), "changed": True}


def roll_back(registry: Registry, version: int | None = None, *, reason: str = "") -> dict[str, Any]:
    """Make a former champion the champion again; the note of the move.

    Parameters
    ----------
    version:
        Which one; None: the one before the present. Repeated, that goes further back.

    Raises
    ------
    RegistryError
        There is no former champion, or `version` never was one, or is champion now.
    SettingsError
        The reason is too long.
    """
    _check_reason(reason)
    standing = registry.standing()
    now = standing.aliases.get("champion")
    line = champions(standing.notes.values())
    former = {note["version"] for note in standing.notes.values() if note["alias"] == "champion"} - {now}
    before = line[line.index(now) - 1] if now in line and line.index(now) > 0 else None
    target = before if version is None else version
    if target is None or target not in former:
        wanted = (
            "a champion before the present one" if version is None else f"version {version} to have been one"
        )
        msg = (
            f"{registry.name}: the champion is {now or 'none'}, former ones are {sorted(former)}; required: "
        )
        raise RegistryError(msg + wanted, hint="`marketray models history` lists every move")
    record = {"action": "rollback", "reason": reason.strip()}
    return registry.set_alias("champion", target, record)


def champions(notes: Iterable[Mapping[str, Any]]) -> list[int]:
    """The line of champions, oldest first, the present one last; those rolled back over are left out."""
    line: list[int] = []
    for note in notes:
        if note["alias"] != "champion":
            continue
        version = int(note["version"])
        if version in line:
            del line[line.index(version) :]
        line.append(version)
    return line


def forbidden(registry: Registry, found: ModelVersion, alias: str) -> str | None:
    """Why the gate's verdict forbids the alias; None where it allows it.

    Missing evidence forbids every alias. Champion needs the verdict ``promoted`` over the present champion;
    or ``bootstrap`` while there is none.
    """
    evidence = found.evidence
    if evidence.get("alias") is None:
        return f"its evidence is missing ({_reasons(found)})"
    if alias != "champion":
        return None
    allowed = ("promoted",) if registry.champion() else ("promoted", "bootstrap")
    if found.verdict not in allowed:
        return f"the gate's verdict is {found.verdict!r}; required: 'promoted' ({_reasons(found)})"
    return outdated(registry, found.version, evidence.get("champion_version"))


def outdated(registry: Registry, version: int, judged_against: int | None) -> str | None:
    """Why a verdict over one champion says nothing any more; None where that champion is still there."""
    champion = registry.champion()
    now = None if champion is None else champion.version
    if now in (judged_against, version):
        return None
    before = "while there was no champion" if judged_against is None else f"against champion {judged_against}"
    present = "there is none now" if now is None else f"the champion is now version {now}"
    return f"it was judged {before}, {present}"


def _reasons(found: ModelVersion) -> str:
    return "; ".join(found.evidence.get("reasons", ())) or "no reason is recorded"


def _check_reason(reason: str) -> None:
    if len(reason) > _REASON_LIMIT:
        msg = f"--reason has {len(reason)} characters; required: at most {_REASON_LIMIT}"
        raise SettingsError(msg)
