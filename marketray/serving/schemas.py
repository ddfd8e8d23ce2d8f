"""What the HTTP service takes and answers."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from marketray.bars import QUOTES, SIZES

__all__ = [
    "MAX_BARS",
    "Bar",
    "Evidence",
    "Forecasted",
    "Health",
    "Index",
    "Interval",
    "ModelInfo",
    "PredictRequest",
    "PredictResponse",
    "Problem",
    "Ready",
    "Uncertainty",
    "kind_of",
]

MAX_BARS = 10_000
"""Most bars that one request may carry."""

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*")


def _iso_text(value: Any) -> Any:
    """Numbers are refused: whether they mean seconds or milliseconds would be a guess."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _ISO.fullmatch(value):
        msg = "required: an ISO 8601 time with zone such as 2024-05-01T14:30:00Z"
        raise ValueError(msg)
    return value


def _to_utc(value: datetime) -> datetime:
    if not 1900 <= value.year < 2200:
        msg = f"got the year {value.year}; required: 1900 … 2199"
        raise ValueError(msg)
    return value.astimezone(UTC)


UtcTime = Annotated[AwareDatetime, BeforeValidator(_iso_text), AfterValidator(_to_utc)]
Price = Annotated[float, Field(gt=0, lt=1e12, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bar(_Body):
    """One finished bar. Prices are positive and low <= open, close <= high."""

    time: UtcTime = Field(
        description="Open of the bar, ISO 8601 with zone.", examples=["2024-05-01T14:30:00Z"]
    )
    open: Price = Field(examples=[5022.25])
    high: Price = Field(examples=[5023.5])
    low: Price = Field(examples=[5021.75])
    close: Price = Field(examples=[5023.0])
    volume: Size | None = Field(
        None, description="Null or left out where the market reports none.", examples=[812.0]
    )
    bid: Price | None = Field(None, description="Bid at the bar's close.", examples=[5022.875])
    ask: Price | None = Field(None, description="Ask at the bar's close.", examples=[5023.125])
    bid_size: Size | None = Field(None, description="Size at the bid.", examples=[12.0])
    ask_size: Size | None = Field(None, description="Size at the ask.", examples=[9.0])

    @model_validator(mode="after")
    def _sane(self) -> Bar:
        if self.low > min(self.open, self.close) or self.high < max(self.open, self.close):
            msg = (
                f"got open={self.open:g}, high={self.high:g}, low={self.low:g}, close={self.close:g}; "
                "required: low <= open, close <= high"
            )
            raise ValueError(msg)
        if self.bid is not None and self.ask is not None and self.bid > self.ask:
            msg = f"got bid={self.bid:g}, ask={self.ask:g}; required: bid <= ask"
            raise ValueError(msg)
        return self


class PredictRequest(_Body):
    """Which forecast is wanted.

    Without `bars` the forecast starts from the service's latest bar. With `bars` it starts from the last
    of them; they must be sorted, without duplicates, and at least as many as /model-info's
    ``lookback_bars``.
    """

    instrument: str | None = Field(
        None, min_length=1, max_length=100, description="Must be the served one; /model-info names it."
    )
    bars: Annotated[list[Bar], Field(min_length=1, max_length=MAX_BARS)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> PredictRequest:
        bars = self.bars or []
        for i in range(1, len(bars)):
            if bars[i].time <= bars[i - 1].time:
                msg = (
                    f"bars[{i}].time: got {bars[i].time.isoformat()} after {bars[i - 1].time.isoformat()}; "
                    "required: sorted times without duplicates"
                )
                raise ValueError(msg)
        for name in (*QUOTES, *SIZES):
            given = sum(getattr(bar, name) is not None for bar in bars)
            if 0 < given < len(bars):
                msg = f"bars.{name}: got {given} of {len(bars)}; required: in every bar or in none"
                raise ValueError(msg)
        return self


class Interval(BaseModel):
    """Central prediction interval of the price at ``target_at``."""

    level: float = Field(gt=0, lt=1)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)


class Uncertainty(BaseModel):
    """Where a model's intervals and probabilities come from."""

    method: str
    levels: list[float]
    as_of: datetime = Field(
        description="End of the last label that the widths know, UTC; serving does not move them."
    )


class Evidence(BaseModel):
    """What the evidence gate found on out-of-time rows.

    Attributes
    ----------
    verdict:
        promoted, bootstrap (the first model, which had no champion to beat), challenger or refused.
    r2_oos:
        1 - MSE / MSE of the zero forecast; above 0 is skill.
    p_value:
        One-sided, of no skill over the zero forecast.
    """

    verdict: str
    r2_oos: float | None = None
    p_value: float | None = None


class Forecasted(BaseModel):
    """What a model says of a decision. Returns are fractions (0.001 = 0.1 %); null: not known, never zero."""

    timestamp: datetime = Field(description="Decision time: the end of the last bar used, UTC.")
    target_at: datetime = Field(description="timestamp + horizon_minutes.")
    instrument: str
    horizon_minutes: int
    last_close: float
    prediction: float | None = Field(description="Price forecast, last_close * (1 + predicted_return).")
    predicted_return: float | None = Field(description="Null where the model forecasts the direction only.")
    direction: Literal["up", "down", "flat"]
    confidence: float | None = Field(
        description="Calibrated P(that direction); null where the model has no uncertainty.json."
    )
    probability_up: float | None = Field(
        description="Calibrated P(return > 0). Without uncertainty.json a direction model's own, else null."
    )
    interval: Interval | None = Field(
        description="The 80 % interval; null where the model has no uncertainty.json."
    )
    intervals: list[Interval] | None = Field(description="The intervals of all levels, narrowest first.")
    features_used: int = Field(description="How many features the model read.")
    model_version: int
    model_type: str
    slot: str
    test_rmse_pct: float | None = Field(
        description="RMSE on test rows in percent: of the return, or of P(up) for a direction model."
    )
    feature_catalog: str = Field(description="Hash of the feature definitions.")
    evidence: Evidence

    @model_validator(mode="after")
    def _finite(self) -> Self:
        for name in ("last_close", "prediction", "predicted_return", "probability_up", "confidence"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                msg = f"{name}={value}; required: finite"
                raise ValueError(msg)
        return self


class PredictResponse(Forecasted):
    """A forecast, as one request got it."""

    request_id: str
    latency_ms: float = Field(ge=0, description="Inside the service, from request to answer.")


class ModelInfo(BaseModel):
    """The served model and what it needs."""

    model_name: str
    model_version: int
    model_type: str
    task: str
    instrument: str
    horizon_minutes: int
    bar_interval_minutes: int
    slot: str
    features: list[str]
    inputs: list[str] = Field(description="Optional bar columns that the model needs, such as volume.")
    lookback_bars: int = Field(description="Fewest bars that a request with bars must carry.")
    feature_catalog: str
    scorer: str | None = Field(description="What scores the news that it sees; null where it sees none.")
    test_rmse_pct: float | None
    evidence: Evidence
    uncertainty: Uncertainty | None = Field(description="Null where the model has no uncertainty.json.")
    last_bar_end_at: datetime | None = Field(description="Decision time of the latest state, UTC.")


class Health(BaseModel):
    """Liveness: this answer means that the process works."""

    status: Literal["healthy", "degraded"]
    model_loaded: bool


class Ready(BaseModel):
    """Readiness: a model and fresh bars are there."""

    status: Literal["ready"]
    model_version: int
    last_bar_end_at: datetime


class Index(BaseModel):
    """Where to find what."""

    service: str
    version: str
    endpoints: dict[str, str]


class Problem(BaseModel):
    """A problem in the form of RFC 9457."""

    type: str = Field(description="URN that names the kind of problem.")
    title: str
    status: int
    detail: str
    got: str | None = None
    required: str | None = None
    hint: str | None = None
    request_id: str | None = None
    errors: list[dict[str, str]] | None = Field(None, description="One entry per wrong field.")

    @property
    def kind(self) -> str:
        """The end of the URN, such as ``no-model``."""
        return kind_of(self.type)


def kind_of(urn: str) -> str:
    """The kind of problem that a `Problem.type` names."""
    return urn.rpartition(":")[2]
