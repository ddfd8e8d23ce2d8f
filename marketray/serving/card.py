"""The card beside a registered model: what serving must know to use it as it was trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from marketray.errors import ModelError
from marketray.serving.schemas import Evidence
from marketray.settings import FeatureSettings, MarketSettings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CARD_FILE", "ModelCard", "read_card"]

CARD_FILE = "serving.json"


class ModelCard(BaseModel):
    """Content of ``serving.json`` in a model's folder.

    Attributes
    ----------
    columns:
        Features in the model's order.
    catalog_hash:
        Hash of the feature definitions the model was trained on; serving refuses any other.
    feature_inputs:
        Optional inputs (bar columns, news) that the data had.
    scorer:
        What scored the news that the model was trained on (`marketray.sentiment.store.stored_scorer`); None
        for a model that sees no news.
    feature_settings, market:
        Settings from which the same features can be computed again.
    test_rmse_pct:
        RMSE of the label on test rows, percent.
    """

    model_config = ConfigDict(frozen=True)

    instrument: str
    horizon_minutes: int = Field(ge=1)
    bar_interval_minutes: int = Field(ge=1)
    task: str
    columns: tuple[str, ...]
    catalog_hash: str
    feature_inputs: tuple[str, ...]
    scorer: str | None = None
    feature_settings: FeatureSettings
    market: MarketSettings = Field(validation_alias=AliasChoices("market", "market_settings"))
    test_rmse_pct: float | None = None
    evidence: Evidence
    model_type: str


def read_card(folder: Path) -> ModelCard:
    """The card of the model in `folder`.

    Raises
    ------
    ModelError
        There is no card, or it lacks a key.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError) as e:
        wrong = (
            "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in e.errors())
            if isinstance(e, ValidationError)
            else str(e)
        )
        msg = f"{path}: not a usable model card ({wrong})"
        raise ModelError(msg, hint="register the model again with `marketray select`") from e
