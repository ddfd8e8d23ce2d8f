"""What the HTTP service takes and answers about the traffic, its slots, and rollouts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from marketray.settings_serving import RolloutSettings

__all__ = [
    "ReloadRequest",
    "RolloutDecision",
    "RolloutRequest",
    "RolloutState",
    "TrafficChange",
    "TrafficRequest",
    "TrafficState",
]

Slot = Literal["blue", "green"]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Version = (
    Annotated[int, Field(strict=True, ge=1, lt=2**31)]
    | Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
)
"""A number, or an alias such as champion."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrafficRequest(_Body):
    """What shall be in force; what is left out stays."""

    weights: Annotated[dict[Slot, Percent], Field(min_length=1)] | None = Field(
        None,
        description="Percent of the requests by slot, to 1/100; a slot that is left out gets the rest.",
        examples=[{"blue": 90, "green": 10}],
    )
    models: Annotated[dict[Slot, Version | None], Field(min_length=1)] | None = Field(
        None,
        description="Registry version or alias by slot; null empties it.",
        examples=[{"green": "challenger"}],
    )
    shadow: Slot | None = Field(
        None, description="The slot that answers every request of the other unseen; null: none does."
    )
    sticky: Literal["client", "instrument"] | None = Field(
        None, description="By what a request keeps to its slot."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if not given | (self.model_fields_set & {"shadow"}):
            msg = "got no change; required: weights, models, shadow or sticky"
            raise ValueError(msg)
        return self


class ReloadRequest(_Body):
    """Which version shall stand in a slot from now on."""

    slot: Slot | None = Field(None, description="By default the one that most requests go to.")
    model: Version = "champion"


class RolloutRequest(RolloutSettings):
    """A new model that shall take over step by step. Rules that are left out are the settings' own."""

    slot: Slot
    model: Version


class RolloutDecision(BaseModel):
    """A decision that moved a rollout; `step` is the one after it."""

    at: datetime
    kind: str
    step: int
    reason: str


class RolloutState(BaseModel):
    """A rollout as it stands, or as it ended."""

    id: int
    phase: Literal["shadow", "step", "done", "broken", "cancelled"]
    slot: Slot
    version: int
    step: int = Field(description="Index into steps; -1 while the new model is the shadow.")
    steps: list[float] = Field(description="Percent of the requests.")
    started_at: datetime
    entered_at: datetime = Field(description="When the present step began.")
    ended_at: datetime | None = Field(description="Null: it is running.")
    who: str
    reason: str = Field(description="Why it is where it is.")
    decisions: list[RolloutDecision] = Field(description="The last 20, newest first.")


class TrafficChange(BaseModel):
    """One change of the traffic."""

    seq: int
    at: datetime
    who: str
    action: str
    reason: str
    weights: dict[Slot, float] = Field(description="Percent of the requests by slot.")
    models: dict[Slot, int | None] = Field(description="Registry version by slot.")
    shadow: Slot | None


class TrafficState(BaseModel):
    """The traffic in force, and how it came about."""

    weights: dict[Slot, float] = Field(description="Percent of the requests by slot.")
    models: dict[Slot, int | None] = Field(description="Registry version that each slot shall hold.")
    answering: dict[Slot, int | None] = Field(
        description="Registry version that each slot answers with now; null: it does not answer."
    )
    unwell: dict[Slot, str] = Field(description="Slots that get no requests now, with the reason.")
    shadow: Slot | None
    sticky: Literal["client", "instrument"]
    seq: int = Field(description="Number of the last change.")
    at: datetime
    who: str
    history: list[TrafficChange] = Field(description="The last 50 changes, newest first.")
    rollout: RolloutState | None = Field(description="The one that is running, else the last one.")
