"""The present champion, applied to the rows of a new candidate's test."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError
from marketray.evaluation.candidates import predict
from marketray.evaluation.gate import Champion

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.evaluation.forecasts import Forecasts
    from marketray.registry import Registry
    from marketray.settings import Settings

__all__ = ["score_champion"]

logger = logging.getLogger(__name__)


def score_champion(
    registry: Registry, forecasts: Forecasts, oot: Block, catalog_hash: str
) -> Champion | None:
    """The champion with its forecasts of the OOT rows; None where there is no champion.

    It can be scored only if it was made for the same instrument, horizon and task from the same feature
    definitions: a column of the same name that means something else would judge it wrongly. Otherwise
    ``prediction`` is None and ``reason`` says why.
    """
    current = registry.champion()
    if current is None:
        return None
    try:
        folder = registry.download(current.version)
        card = json.loads((folder / "serving.json").read_text())
        wanted = _identity(forecasts.settings, catalog_hash)
        differing = sorted(key for key, value in wanted.items() if card.get(key) != value)
        if differing:
            reason = f"it was made for another {', '.join(differing)}"
            return Champion(current.version, current.verdict, None, reason)
        prediction = predict(folder, oot) - forecasts.rows(oot).centre
    except (MarketrayError, OSError, ValueError) as e:
        reason = e.message if isinstance(e, MarketrayError) else str(e)
        logger.warning("champion version %d cannot be scored: %s", current.version, reason)
        return Champion(current.version, current.verdict, None, reason)
    return Champion(current.version, current.verdict, prediction)


def _identity(settings: Settings, catalog_hash: str) -> dict[str, Any]:
    return {
        "instrument": settings.instrument,
        "horizon_minutes": settings.labels.horizon_minutes,
        "task": settings.labels.task,
        "catalog_hash": catalog_hash,
    }
