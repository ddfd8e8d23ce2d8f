"""What the HTTP service takes and answers about bars, batches of rows, the record, and news."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict, model_validator

from marketray.serving.schemas import MAX_BARS, Bar, Forecasted, Problem

__all__ = [
    "MAX_ROWS",
    "BarsRequest",
    "BarsTaken",
    "BatchRequest",
    "BatchResponse",
    "News",
    "NewsArticle",
    "RecordedPrediction",
    "RecordedPredictions",
]

MAX_ROWS = 10_000
"""Most rows that one batch may have."""

Number = Annotated[float, Strict(), Field(gt=-3.4e38, lt=3.4e38)]
"""What a 32-bit float holds: models read no more."""


class BarsRequest(BaseModel):
    """Finished bars in time order, newer than what the service has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instrument: str | None = Field(None, min_length=1, max_length=100, description="Must be the served one.")
    bars: Annotated[list[Bar], Field(min_length=1, max_length=MAX_BARS)]


class BarsTaken(BaseModel):
    """What became of the bars, and the forecast from the last one."""

    taken: int = Field(description="Bars that were new.")
    known: int = Field(description="Bars that were there already with the same values.")
    last_bar_end_at: datetime | None = Field(description="Decision time of the latest state, UTC.")
    forecast: Forecasted | None = Field(description="From the latest state; null where there is none.")
    problem: Problem | None = Field(description="Why there is no forecast.")


class BatchRequest(BaseModel):
    """Rows of features."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    columns: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=5_000)] = (
        Field(description="The model's features (/model-info), each once, in any order.")
    )
    rows: Annotated[
        list[Annotated[list[Number | None], FailFast()]],
        FailFast(),
        Field(min_length=1, max_length=MAX_ROWS, description="Values by column; null where one is missing."),
    ]

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        width = len(self.columns)
        wrong = next((i for i, row in enumerate(self.rows) if len(row) != width), None)
        if wrong is not None:
            msg = f"rows[{wrong}]: got {len(self.rows[wrong])} values; required: {width}, one a column"
            raise ValueError(msg)
        return self


class BatchResponse(BaseModel):
    """What one model says of every row."""

    model_version: int
    slot: str
    feature_catalog: str = Field(description="Hash of the feature definitions.")
    task: Literal["regression", "direction"]
    values: list[float] = Field(
        description="Predicted returns as fractions, or the probability of a rise for a direction model."
    )
    request_id: str
    latency_ms: float = Field(ge=0, description="Inside the service, from request to answer.")


class RecordedPrediction(BaseModel):
    """An answer of a slot, or its failure to answer. Returns are fractions; null: not known."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    request_id: str
    at: datetime = Field(description="When it was asked, UTC.")
    instrument: str
    slot: str
    shadow: bool = Field(description="It was recorded and not given.")
    model_name: str | None
    model_version: int | None
    catalog_hash: str | None
    bars: Literal["state", "request"] = Field(description="The service's own bars, or the caller's.")
    decision_at: datetime | None
    target_at: datetime | None
    last_close: float | None
    predicted_return: float | None
    probability_up: float | None
    direction: str | None
    features_used: int | None
    latency_ms: float | None
    status: int
    problem: str | None = Field(description="Kind of problem where there is no forecast.")
    actual_return: float | None
    error: float | None = Field(description="predicted_return - actual_return.")
    actual_at: datetime | None = Field(description="When it was looked up; null: not yet.")
    actual_reason: str | None = Field(description="Why there is no actual return though it was looked up.")


class RecordedPredictions(BaseModel):
    """A page of the record, newest first."""

    predictions: list[RecordedPrediction]
    next_cursor: str | None = Field(description="Of the next page; null: there is none.")


class NewsArticle(BaseModel):
    """An article and the probabilities that the scorer gave its three classes."""

    title: str
    source: str
    url: str | None
    published_at: datetime
    available_at: datetime = Field(description="From when on decisions may know it, UTC.")
    positive: float
    negative: float
    neutral: float
    score: float = Field(description="positive - negative.")


class News(BaseModel):
    """Scored articles, newest first by available_at."""

    instrument: str
    scorer: str | None = Field(description="What scored them; null where there are none.")
    articles: list[NewsArticle]
