"""What became of the rows of every stage, read off the manifests that the stages leave in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from marketray.lake import Lake

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["data_quality"]

_COUNTS = ("rows_in", "rows_out", "rows_quarantined", "rows_dropped")


def data_quality(settings: Settings) -> dict[str, Any]:
    """The section ``quality`` of report.json.

    Returns
    -------
    dict
        ``stages``: of each stage that left a manifest its name and rows_in = rows_out + rows_quarantined +
        rows_dropped; news counts copies of articles among the dropped. ``quarantined``: rows in quarantine by
        stage and reason.
    """
    lake = Lake(settings.lake_uri)
    owners = dict.fromkeys(("ingest", "news", "sentiment", "features"), settings.instrument)
    owners["dataset"] = settings.name
    manifests = {name: lake.read_json(f"manifests/{name}/{owner}.json") for name, owner in owners.items()}
    found = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    return {
        "stages": [{"stage": name, **_counts(name, manifest)} for name, manifest in found.items()],
        "quarantined": [
            {"stage": name, "reason": reason, "rows": rows}
            for name, manifest in found.items()
            for reason, rows in sorted(_reasons(name, manifest).items())
        ],
    }


def _counts(stage: str, manifest: Mapping[str, Any]) -> dict[str, int | None]:
    if stage != "news":
        return {key: manifest.get(key) for key in _COUNTS}
    result = manifest["result"]
    return {key: result[key] for key in _COUNTS[:3]} | {
        "rows_dropped": result["rows_dropped"] + result["rows_duplicate"]
    }


def _reasons(stage: str, manifest: Mapping[str, Any]) -> Mapping[str, int]:
    """Rows in quarantine by reason; features and the dataset refuse none."""
    if stage == "ingest":
        reasons: Mapping[str, int] = manifest["detail"]["report"]["reasons"]
    elif stage == "news":
        reasons = manifest["result"]["quarantined"]
    else:
        reasons = manifest.get("detail", {}).get("reasons", {}) if stage == "sentiment" else {}
    return reasons
