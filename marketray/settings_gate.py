"""The gate's section of the settings: named rules with thresholds, here or in a file of their own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "CoverageRule",
    "DriftRule",
    "GateSettings",
    "LatencyRule",
    "OotRmseRule",
    "RmseRatioRule",
    "SkillRule",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SkillRule(_Strict):
    """R² over another forecast and the one-sided Diebold–Mariano test; the two skill rules are always on."""

    min_r2_oos: float = 0.0  # must be exceeded


class RmseRatioRule(_Strict):
    """Skill must last: RMSE over the zero forecast's RMSE, on OOT against test."""

    enabled: bool = True
    max_increase: float = Field(1.02, gt=0)  # (RMSE / zero's RMSE) on OOT over the same on test


class OotRmseRule(_Strict):
    """RMSE on OOT against test. Off: it measures how volatile the two periods were."""

    enabled: bool = False
    max_ratio: float = Field(1.2, gt=0)  # RMSE on OOT over RMSE on test


class CoverageRule(_Strict):
    """How often the 80 % interval holds the label on OOT."""

    enabled: bool = True
    tolerance: float = Field(0.05, gt=0, lt=0.2)  # on either side of 0.80


class DriftRule(_Strict):
    """Features that are distributed otherwise on OOT than in training."""

    enabled: bool = True
    max_share: float = Field(0.5, ge=0, le=1)  # of the model's columns
    column_threshold: float = Field(0.3, gt=0)  # Wasserstein distance in training standard deviations
    sample_rows: int = Field(5_000, ge=100)  # of either side, drawn at random


class LatencyRule(_Strict):
    """Time of a forecast for a single row, timed where the selection runs."""

    enabled: bool = True
    max_p99_ms: float = Field(50.0, gt=0)
    sample_rows: int = Field(500, ge=100)  # forecasts that are timed


class GateSettings(_Strict):
    """The evidence a model must show to be promoted, as named rules; see docs/promotion.md."""

    file: str | None = None  # YAML with this section's other keys, in place of them; see configs/gate.yaml
    alpha: float = Field(0.05, gt=0, lt=1)  # of the skill rules; the k-th opening tests at alpha / 2^k
    bootstrap: Literal["allow", "refuse"] = "allow"  # a first model without skill as champion
    skill_over_zero: SkillRule = SkillRule()
    skill_over_champion: SkillRule = SkillRule()
    rmse_ratio: RmseRatioRule = RmseRatioRule()
    oot_rmse: OotRmseRule = OotRmseRule()
    coverage: CoverageRule = CoverageRule()
    drift: DriftRule = DriftRule()
    latency: LatencyRule = LatencyRule()
