"""The sections of the settings, one class each; `marketray.settings` puts them together."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "BacktestSettings",
    "FamilyName",
    "FeatureFile",
    "FeatureSettings",
    "FileSource",
    "LabelSettings",
    "MarketSettings",
    "Name",
    "NewsSettings",
    "QualitySettings",
    "SentimentSettings",
    "SimulatorSource",
    "SplitSettings",
    "StressWindow",
    "TrackingSettings",
    "TuningSettings",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _safe_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = f"got {value!r}; required: letters, digits, '.', '_' and '-' only, since it names a folder"
        raise ValueError(msg)
    return value


Name = Annotated[str, AfterValidator(_safe_name)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SimulatorSource(_Section):
    """The embedded market simulator: seeded minute bars and news with a planted, known effect."""

    kind: Literal["simulator"] = "simulator"
    bars: int = Field(140_000, ge=10_000, le=100_000_000)  # one-minute bars, all sessions together
    start: str = "2024-01-02"  # first session date; the data end where `bars` is reached
    seed: int = 7
    effect: Literal["none", "market", "news", "all"] = "market"  # what moves the next 30 minutes
    market_r2: float = Field(0.05, ge=0.0, le=0.5)  # share of the label's variance planted
    news_r2: float = Field(0.02, ge=0.0, le=0.5)
    missing_share: float = Field(0.01, ge=0.0, le=0.5)  # minutes without a trade


class FileSource(_Section):
    """Bars in CSV, NDJSON or Parquet files, read in chunks."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)  # files, read in this order; globs allowed
    format: Literal["auto", "csv", "ndjson", "parquet"] = "auto"
    layout: Literal["columns", "oanda"] = "columns"  # named columns, or OANDA candles
    columns: dict[str, str] = {}  # ours -> the file's name; same name where not given
    instrument_column: str | None = None  # of files with several instruments: the column with their names
    select: dict[str, str] = {}  # keep rows whose column has this value, e.g. {contract: ESH19}
    timezone: str | None = None  # zone of naive stamps; required when stamps are naive
    stamp: Literal["open", "close"] = "open"  # what a stamp means: the bar's open or its close
    volume: Literal["auto", "present", "absent"] = "auto"  # auto: all zero means absent

    @model_validator(mode="after")
    def _selected_once(self) -> FileSource:
        if self.instrument_column in self.select:
            msg = f"instrument_column={self.instrument_column!r} is in select too; required: one of the two"
            raise ValueError(msg)
        return self


class NewsSettings(_Section):
    """Articles in files; their text, the times when they became known, and which of them to keep."""

    paths: tuple[str, ...] = Field(min_length=1)  # files; globs allowed; their order does not matter
    format: Literal["auto", "json", "ndjson", "csv", "parquet"] = "auto"  # json: one article a file
    columns: dict[str, str] = {}  # ours -> the file's name, e.g. {published_at: time, body: description}
    timezone: str | None = None  # zone of naive stamps; required when stamps are naive
    precision: str  # of published_at: second, minute, hour, day, or the column that says which
    day_zone: str | dict[str, str] | None = None  # of day stamps: zone, `unknown`, or source -> zone
    latency_seconds: float = Field(60.0, ge=0)  # from collection to use
    source: str | None = None  # of articles that name none
    language: str | None = None  # of articles that name none
    languages: tuple[str, ...] = ("en",)  # to keep; empty: all
    unknown_language: Literal["keep", "drop"] | None = None  # required when articles have no language
    relevance: tuple[str, ...] = ()  # keep articles with one of these words; empty: all
    max_quarantined_share: float = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _zones_known(self) -> NewsSettings:
        if self.precision == "day" and self.day_zone is None:
            msg = "precision='day' needs day_zone: the zone in which the source counts its days, or unknown"
            raise ValueError(msg)
        zones = self.day_zone.values() if isinstance(self.day_zone, dict) else [self.day_zone]
        for name, zone in [("timezone", self.timezone), *(("day_zone", z) for z in zones if z != "unknown")]:
            try:
                ZoneInfo(zone or "UTC")
            except (ZoneInfoNotFoundError, ValueError, OSError) as e:
                msg = f"{name}: got {zone!r}; required: a zone of the IANA database, e.g. America/New_York"
                raise ValueError(msg) from e
        return self

    @model_validator(mode="after")
    def _words_in_relevance(self) -> NewsSettings:
        if not all(term.strip() for term in self.relevance):
            msg = f"relevance={list(self.relevance)} has an empty term; required: words"
            raise ValueError(msg)
        return self


class MarketSettings(_Section):
    """Trading hours: an exchange calendar, daily breaks, and the hours in which to decide."""

    calendar: str = "CMES"  # of exchange_calendars, e.g. CMES, XNYS, XLON, 24/7
    breaks: tuple[str, ...] = ("17:00-18:00 America/New_York",)  # daily halts; each ends a session
    decision_hours: str = "all"  # all, or a calendar in whose sessions to decide, such as XNYS


class QualitySettings(_Section):
    """Limits of the data checks on bars."""

    max_missing_share: float = Field(0.05, ge=0, le=1)  # per column
    max_quarantined_share: float = Field(0.05, ge=0, le=1)
    min_rows: int = Field(5_000, ge=1)
    max_age_days: float = Field(7.0, gt=0)
    min_coverage: float = Field(0.5, ge=0, le=1)  # of the calendar's minutes, breaks left out
    outlier_sigma: float = Field(8.0, gt=0)
    spike_sigma: float = Field(20.0, ge=20.0)
    spike_reversal: float = Field(0.8, ge=0.8, le=1)


class FeatureFile(_Section):
    """A Python file with features of the user; settings name the path only.

    The text is read once, where the settings are made, and travels with them from then on: to the
    cluster's tasks and into the model's card, where the path need not exist.
    """

    path: str
    text: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class FeatureSettings(_Section):
    """Which features to compute."""

    catalog: Literal["standard", "seed-compatible"] = "standard"  # docs/features.md lists both
    files: tuple[FeatureFile, ...] = ()  # features of your own, see docs/user-features.md
    groups: tuple[str, ...] = ()  # of the catalog; empty: all groups
    exclude: tuple[str, ...] = ()  # features left out by name
    trading_sentiment: float = Field(0.2, ge=0, le=1)  # news_trading_signal_*: |average sentiment| above it
    trading_strength: float = Field(0.3, ge=0, le=1)  # and signal strength above it, else 0


class LabelSettings(_Section):
    """What is forecast: the simple return over (decision_at, decision_at + horizon]."""

    horizon_minutes: int = Field(30, ge=1, le=1440)
    extra_horizons_minutes: tuple[int, ...] = (60,)
    label_tolerance_minutes: int = Field(5, ge=0)
    task: Literal["regression", "direction"] = "regression"
    class_edges: tuple[float, float, float, float] = (-0.005, -0.001, 0.001, 0.005)

    @model_validator(mode="after")
    def _consistent(self) -> LabelSettings:
        if self.label_tolerance_minutes >= self.horizon_minutes:
            msg = (
                f"label_tolerance_minutes={self.label_tolerance_minutes} must be smaller than "
                f"horizon_minutes={self.horizon_minutes}"
            )
            raise ValueError(msg)
        wrong = [h for h in self.extra_horizons_minutes if not self.label_tolerance_minutes < h <= 1440]
        if wrong or len(set(self.extra_horizons_minutes)) < len(self.extra_horizons_minutes):
            msg = (
                f"extra_horizons_minutes={self.extra_horizons_minutes} must be different minutes above "
                f"label_tolerance_minutes={self.label_tolerance_minutes} and at most 1440"
            )
            raise ValueError(msg)
        if list(self.class_edges) != sorted(set(self.class_edges)):
            msg = f"class_edges={self.class_edges} must be strictly increasing"
            raise ValueError(msg)
        return self


class SplitSettings(_Section):
    """Time-ordered split; OOT2 is taken first, then the shares of the rest in time order."""

    oot2_share: float = Field(0.05, gt=0, lt=0.5)
    oot2_max_rows: int = Field(10_000, ge=1)
    train: float = Field(0.60, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    oot: float = Field(0.10, gt=0, lt=1)
    cv_folds: int = Field(3, ge=1, le=20)
    cv_share: float = Field(0.15, gt=0, lt=0.5)  # of train + validation, per fold

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        total = self.train + self.validation + self.test + self.oot
        if abs(total - 1) > 1e-9:
            msg = f"train + validation + test + oot = {total:g}; required: 1"
            raise ValueError(msg)
        if self.cv_folds * self.cv_share >= 1:
            msg = f"cv_folds * cv_share = {self.cv_folds * self.cv_share:g}; required: below 1"
            raise ValueError(msg)
        return self


FamilyName = Literal["xgboost", "lightgbm", "ar"]


class TuningSettings(_Section):
    """Two-stage tuning of all families at once."""

    families: tuple[FamilyName, ...] = Field(("xgboost", "lightgbm", "ar"), min_length=1)
    stage1_trials: int = Field(20, ge=1)
    stage2_trials: int = Field(30, ge=0)
    seed: int = 42
    patience: int = Field(10, ge=1)  # in units of round_step boosting rounds
    round_step: int = Field(10, ge=1)
    max_rounds: int = Field(9_000, ge=10)  # cap on n_estimators
    ar_max_lags: int = Field(60, ge=1, le=60)
    parallel_trials: int = Field(2, ge=1)  # of a family; decides what a trial can know of those before it
    pruning: bool = True
    device: Literal["cpu", "cuda"] = "cpu"  # where XGBoost fits; cuda: the trials share the cluster's GPUs
    feature_groups: bool = True  # stage 2 of trees chooses a group of columns by contribution in each fold

    @model_validator(mode="after")
    def _each_family_once(self) -> TuningSettings:
        if len(set(self.families)) < len(self.families):
            msg = f"families={self.families} names a family twice"
            raise ValueError(msg)
        return self


class StressWindow(_Section):
    """Sessions [first, last] whose figures are shown on their own, such as a crash or a slow bear."""

    name: str = Field(min_length=1)
    first: date
    last: date

    @model_validator(mode="after")
    def _in_order(self) -> StressWindow:
        if self.last < self.first:
            msg = f"window {self.name!r} ends on {self.last}; required: not before its first={self.first}"
            raise ValueError(msg)
        return self


class BacktestSettings(_Section):
    """What trading on the forecasts would have earned, see docs/backtest.md."""

    spread_bps: float | None = Field(None, ge=0)  # ask - bid; required where bars have no bid and ask
    commission_bps: float = Field(0.0, ge=0)  # of the amount traded, each way
    slippage_bps: float = Field(0.0, ge=0)  # each way, beyond half the spread
    threshold_costs: float = Field(1.0, ge=0)  # trade where the forecast reaches so many round-trip costs
    threshold_return: float | None = Field(None, ge=0)  # or this return instead, a fraction
    threshold_probability: float = Field(0.05, ge=0, lt=0.5)  # direction task: P(up) this far from 0.5
    position: Literal["average", "latest"] = "average"  # of the signals of the last horizon, or the latest
    hold_over_breaks: bool = False  # false: flat at every session end and daily break
    stress: tuple[StressWindow, ...] = ()  # e.g. {name: crash, first: 2020-02-20, last: 2020-03-23}
    walk_forward: Literal["expanding", "rolling"] | None = None  # empty: the selected model on test
    refit_sessions: int = Field(5, ge=1)  # sessions that one fit of the walk-forward forecasts
    train_sessions: int | None = Field(None, ge=1)  # before the first forecast; empty: a third of all


class TrackingSettings(_Section):
    """MLflow. ``uri`` empty: MLFLOW_TRACKING_URI, else sqlite in home."""

    uri: str | None = None
    experiment: str | None = None  # default: marketray-<name>
    model_name: str | None = None  # default: marketray-<instrument>


class SentimentSettings(_Section):
    """Scoring of news by a sequence classifier, see `marketray.sentiment`."""

    enabled: bool = True  # false: a run leaves the articles alone, and news features are dropped
    model: str | None = None  # Hugging Face name, /folder, or finbert-mini; default: by the news' source
    revision: str | None = None  # commit, branch or tag; of a folder: its content hash, or a start of it
    text: Literal["headline", "headline_and_body"] = "headline"  # what of an article is scored
    max_tokens: int = Field(512, ge=8)  # longer texts are cut
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where native
    actors: int | None = Field(None, ge=1)  # scoring processes; default: as many as the cluster holds
    num_gpus: float = Field(1.0, gt=0)  # per actor, on cuda
    token_budget: int | None = Field(None, ge=8)  # per batch, padding included; default by device
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: long runs on cuda
