"""The present champion, applied to the rows of a new candidate's test."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from marketray.errors import DataError, ModelError, RegistryError
from marketray.evaluation.candidates import predict
from marketray.evaluation.gate import Champion

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.dataset.load import Block
    from marketray.evaluation.forecasts import Forecasts
    from marketray.registry import ModelVersion, Registry
    from marketray.settings import Settings

__all__ = ["score_champion"]

logger = logging.getLogger(__name__)

_HINT = (
    "repair the tracking server, its artefacts or the local copy and run again, or make another version the "
    "champion (marketray models promote, rollback)"
)


def score_champion(
    registry: Registry, forecasts: Forecasts, oot: Block, catalog_hash: str, scorer: str | None = None
) -> Champion | None:
    """The champion with its forecasts of the OOT rows; None where there is no champion.

    It can be scored only if it was made for the same instrument, horizon and task from the same feature
    definitions and, where it sees news, on news that the same `scorer` scored
    (`marketray.sentiment.store.stored_scorer`): a column of the same name that means something else would
    judge it wrongly. Otherwise ``prediction`` is None and ``reason`` says why.

    Raises
    ------
    RegistryError
        The registry or the champion's files cannot be reached or read: that says nothing about the champion.
    """
    current = registry.champion()
    if current is None:
        return None
    folder = _fetched(registry, current)
    reason = _differing(current, folder, _identity(forecasts.settings, catalog_hash), scorer)
    if reason is None:
        try:
            prediction = predict(folder, oot) - forecasts.rows(oot).centre
            return Champion(current.version, current.verdict, prediction)
        except (ModelError, DataError) as e:
            if isinstance(e.__cause__, OSError):
                raise _unread(current, e) from e
            reason = e.message
    logger.warning("champion version %d cannot be scored: %s", current.version, reason)
    return Champion(current.version, current.verdict, None, reason)


def _fetched(registry: Registry, current: ModelVersion) -> Path:
    try:
        return registry.download(current.version)
    except (RegistryError, ModelError) as e:
        raise _unread(current, e) from e


def _differing(current: ModelVersion, folder: Path, wanted: dict[str, Any], scorer: str | None) -> str | None:
    """What sets the champion apart from what is wanted, by its card; None where nothing does."""
    try:
        card = json.loads((folder / "serving.json").read_text())
    except FileNotFoundError:
        return "it was registered without a serving.json"
    except OSError as e:
        raise _unread(current, e) from e
    except ValueError as e:
        return f"its serving.json cannot be read ({e})"
    if card.get("scorer") is not None:  # it sees news
        wanted = {**wanted, "scorer": scorer}
    differing = sorted(key for key, value in wanted.items() if card.get(key) != value)
    return f"it was made for another {', '.join(differing)}" if differing else None


def _unread(current: ModelVersion, error: Exception) -> RegistryError:
    cause = error.message if isinstance(error, RegistryError | ModelError | DataError) else str(error)
    msg = f"{current.name}: champion version {current.version} cannot be fetched and read: {cause}"
    return RegistryError(msg, hint=_HINT)


def _identity(settings: Settings, catalog_hash: str) -> dict[str, Any]:
    return {
        "instrument": settings.instrument,
        "horizon_minutes": settings.labels.horizon_minutes,
        "task": settings.labels.task,
        "catalog_hash": catalog_hash,
    }
