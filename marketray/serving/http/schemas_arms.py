"""What the HTTP service answers about two models side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["ArmState", "ArmsState", "ComparisonState"]

Slot = Literal["blue", "green"]


class ArmState(BaseModel):
    """One model in its slot."""

    slot: Slot
    version: int
    weight: float = Field(description="Percent of the requests now.")
    requests: int = Field(description="That it answered or failed, seen by the caller.")
    shadow_requests: int = Field(description="That it answered or failed unseen.")
    errors: int = Field(description="Of both, those that it failed by its own fault.")
    decisions: int = Field(description="Forecasts of which it is known what came true, one a decision.")
    mean_loss: float | None = Field(description="Of those; null: there is none.")
    mean_loss_margin: float | None = Field(description="Half the width of its 95 % interval.")
    hit_rate: float | None = Field(description="Share of those whose direction was right.")
    hit_rate_low: float | None
    hit_rate_high: float | None


class ComparisonState(BaseModel):
    """The new model beside the old one. The verdict is the sequential test's alone."""

    new: Slot
    verdict: Literal["better", "worse", "undecided"]
    pairs: int = Field(description="Decisions that both answered.")
    method: Literal["paired", "separate", "none"] = Field(description="How the difference came about.")
    difference: float | None = Field(description="Mean loss of the new one less that of the old one.")
    margin: float | None = Field(description="Half the width of its 95 % interval, for one look.")
    effect: float = Field(
        description="Smallest reduction of the loss that matters, a share of the old one's."
    )
    power: float | None = Field(description="Probability of finding that effect in as many decisions.")
    needed: int | None = Field(description="Decisions with which that probability is 80 %.")
    alpha: float = Field(description="Largest probability of a false verdict, of each side.")
    p_better: float = Field(description="Of the sequential test, valid whenever it is looked at.")
    p_worse: float
    expected_seconds: float | None = Field(
        description="Until the verdict, if the evidence goes on to grow as it has."
    )


class ArmsState(BaseModel):
    """What the models in the slots did on live traffic."""

    instrument: str
    loss: Literal["squared", "brier"]
    since: datetime = Field(description="What was recorded or decided before it is left out.")
    arms: list[ArmState] = Field(description="The old one first.")
    comparison: ComparisonState | None = Field(description="Null: a slot is empty.")
