"""Which model scores the news where the settings leave it open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from marketray.sentiment.checkpoint import PACKAGED, Checkpoint

if TYPE_CHECKING:
    import polars as pl

    from marketray.settings import SentimentSettings

__all__ = ["DEFAULT_MODEL", "SIMULATOR_MODEL", "model_for", "warn_of_stand_in"]

_log = logging.getLogger(__name__)

DEFAULT_MODEL = "ProsusAI/finbert"
"""Scores news of the world where the settings name no model."""

SIMULATOR_MODEL = "finbert-mini"
"""Scores the simulator's news where the settings name no model."""

_SIMULATED = "simulator"  # `source` of the simulator's articles


def model_for(options: SentimentSettings, articles: pl.DataFrame) -> str:
    """The model to use: the one named in the settings, else by the articles' column `source`."""
    if options.model is not None:
        return options.model
    simulated = articles["source"].eq_missing(_SIMULATED)  # an article without a source is not
    return SIMULATOR_MODEL if simulated.all() else DEFAULT_MODEL


def warn_of_stand_in(checkpoint: Checkpoint, articles: pl.DataFrame) -> None:
    """The packaged model is for the simulator's news and for tests; say so where it reads other text."""
    real = int((articles["source"].fill_null("") != _SIMULATED).sum())
    if checkpoint.name in PACKAGED and real:
        _log.warning(
            "sentiment: %s scores %d articles that are not the simulator's; it is made for demonstration, "
            "set sentiment.model to ProsusAI/finbert or another classifier for real use",
            checkpoint.name,
            real,
        )
