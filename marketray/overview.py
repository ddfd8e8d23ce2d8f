"""The registry at a glance: a row a version, two versions side by side, everything in a few numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from marketray.aliases import ALIASES

if TYPE_CHECKING:
    from marketray.registry import ModelVersion, Registry

__all__ = ["compare", "row", "summary"]

_EVIDENCE = ("r2_oos", "p_value", "n", "n_effective", "minimum_detectable_r2", "k", "alpha")
_SAME = ("instrument", "data_hash", "catalog_hash")


def row(found: ModelVersion) -> dict[str, Any]:
    """What a list shows of a version; skill and p-value are those of its out-of-time rows."""
    return {
        "version": found.version,
        "stage": found.stage,
        "aliases": list(found.aliases),
        "family": found.family,
        "verdict": found.verdict,
        "r2_oos": found.evidence.get("r2_oos"),
        "p_value": found.evidence.get("p_value"),
        "test_rmse_pct": _test_rmse(found),
        "created_at": found.created_at,
    }


def compare(registry: Registry, one: str | int, other: str | int) -> dict[str, Any]:
    """Two versions side by side.

    Returns
    -------
    dict
        versions: the two as `row` gives them, with the evidence's numbers. same: whether instrument, training
        data and feature catalog are the same; the figures of different data cannot be compared.
        difference: the second's test RMSE minus the first's, percent, where data and instrument are the same.
        judged: the gate's comparison of one with the other as champion {challenger, champion, r2, p_value},
        None where it made none.

    Raises
    ------
    RegistryError
        There is no such version.
    """
    pair = [registry.resolve(which) for which in (one, other)]
    same = {name: _tag(pair[0], name) == _tag(pair[1], name) for name in _SAME}
    errors = [_test_rmse(found) for found in pair]
    comparable = same["instrument"] and same["data_hash"] and None not in errors
    return {
        "versions": [{**row(v), **{name: v.evidence.get(name) for name in _EVIDENCE}} for v in pair],
        "same": same,
        "difference": {"test_rmse_pct": errors[1] - errors[0]} if comparable else None,  # type: ignore[operator]
        "judged": _judged(*pair) or _judged(*reversed(pair)),
    }


def summary(registry: Registry) -> dict[str, Any]:
    """The registry in a few numbers.

    Returns
    -------
    dict
        model, versions (count), stages, verdicts and families (count by name), the aliases with their rows,
        moves (count), last_move, and unrecorded: aliases that were moved in MLflow itself, each
        {alias: {now, recorded}}.
    """
    versions, standing = registry.list(), registry.standing()
    by_number = {found.version: found for found in versions}
    recorded = standing.recorded
    notes = list(standing.notes.values())
    return {
        "model": registry.name,
        "versions": len(versions),
        "stages": dict(Counter(found.stage for found in versions)),
        "verdicts": dict(Counter(found.verdict for found in versions)),
        "families": dict(Counter(found.family for found in versions)),
        "aliases": {
            alias: row(by_number[standing.aliases[alias]]) for alias in ALIASES if alias in standing.aliases
        },
        "moves": len(notes),
        "last_move": notes[-1] if notes else None,
        "unrecorded": {
            alias: {"now": standing.aliases.get(alias), "recorded": recorded.get(alias)}
            for alias in sorted({*standing.aliases, *recorded})
            if standing.aliases.get(alias) != recorded.get(alias)
        },
    }


def _judged(challenger: ModelVersion, champion: ModelVersion) -> dict[str, Any] | None:
    evidence = challenger.evidence
    if evidence.get("champion_version") != champion.version:
        return None
    return {
        "challenger": challenger.version,
        "champion": champion.version,
        "r2": evidence.get("champion_r2"),
        "p_value": evidence.get("champion_p_value"),
    }


def _test_rmse(found: ModelVersion) -> float | None:
    text = _tag(found, "test_rmse_pct")
    return None if text is None else float(text)


def _tag(found: ModelVersion, name: str) -> str | None:
    return found.tags.get(f"marketray.{name}")
