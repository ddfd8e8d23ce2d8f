"""The service's section of the settings, and in it how a new model takes over."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["RolloutSettings", "ServingSettings"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RolloutSettings(_Strict):
    """How a new model takes over from the old one, and what breaks it off."""

    steps: tuple[float, ...] = Field((1, 5, 25, 50, 100), min_length=1, max_length=100)  # %, up to 100
    hold_seconds: float = Field(300.0, ge=0, le=2_592_000)  # at least, on each step
    min_requests: int = Field(100, ge=1)  # that the new model answers on each step
    shadow_seconds: float = Field(60.0, ge=0, le=2_592_000)  # at least, unseen, before the first step
    shadow_min_pairs: int = Field(50, ge=0)  # answers beside the old model's, before the first step
    window_seconds: float = Field(10.0, gt=0, le=86_400)  # the latest requests, judged beside the whole step
    max_error_rate: float = Field(0.01, ge=0, lt=1)  # requests that the new model fails
    error_excess: float = Field(0.005, ge=0, lt=1)  # of its error rate over the old model's
    max_null_rate: float = Field(0.001, ge=0, lt=1)  # answers without a finite forecast
    max_p99_ms: float = Field(250.0, gt=0)  # latency of the new model's answers
    max_p99_ratio: float = Field(3.0, ge=1)  # of it to the old model's, from 10 ms on
    max_disagreement: float = Field(0.5, ge=0, le=1)  # shadow answers of another direction
    alpha: float = Field(0.05, gt=0, lt=1)  # of the sequential test that the new model has the larger loss

    @model_validator(mode="after")
    def _steps_up_to_all(self) -> RolloutSettings:
        shares = all(0 < step <= 100 for step in self.steps)
        hundredths = [round(100 * step) for step in self.steps] if shares else [0] * len(self.steps)
        exact = all(abs(100 * step - n) < 1e-6 for step, n in zip(self.steps, hundredths, strict=True))
        increasing = all(a < b for a, b in pairwise([0, *hundredths]))
        if not exact or not increasing or hundredths[-1] != 10_000:
            msg = (
                f"steps={list(self.steps)}; required: increasing percentages, whole hundredths, the last 100"
            )
            raise ValueError(msg)
        return self


class ServingSettings(_Strict):
    """The HTTP service."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65_535)
    max_bar_age_minutes: float = Field(15.0, gt=0)
    num_replicas: int = Field(1, ge=1)  # of the ingress and of each slot
    mode: Literal["auto", "fast", "plain"] = "auto"  # how requests travel; auto: fast unless Ray uses TLS
    attempt_seconds: float = Field(2.0, gt=0)  # for a slot's answer, before the other slot is asked
    deadline_seconds: float = Field(8.0, gt=0)  # for any answer
    max_body_mb: float = Field(8.0, gt=0, le=1_000)  # of a request
    max_batch_mb: float = Field(32.0, gt=0, le=1_000)  # of one to /predict/batch, 10,000 rows
    cors_origins: tuple[str, ...] = ()  # other sites whose pages may call, such as https://desk.example
    store_uri: str | None = None  # sqlite:///file or postgresql://…; default: serving.db in home
    record_days: int = Field(90, ge=0, le=36_500)  # that recorded answers are kept; 0: for ever
    rollout: RolloutSettings = RolloutSettings()
