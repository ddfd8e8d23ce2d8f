"""A slot: one model version behind the ingress, with the state its forecasts start from."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.errors import DataError, LakeError, MarketrayError, SettingsError
from marketray.serving.problems import problem
from marketray.serving.schemas import Problem

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from marketray.serving.forecaster import Forecast, Forecaster, Row
    from marketray.settings import Settings

__all__ = ["Slot", "SlotConfig", "SlotStatus"]

logger = logging.getLogger(__name__)

_INTERVAL_LEVEL = 0.8


@dataclass(frozen=True)
class SlotConfig:
    """What a slot serves. `folder` is the model's native folder, readable on the replica's node."""

    slot: str
    folder: str
    model_name: str
    model_version: int
    settings: Settings


@dataclass(frozen=True)
class SlotStatus:
    """Whether the slot can answer now; `problem` says why not, `info` is /model-info's content."""

    problem: Problem | None
    info: dict[str, Any] | None


class Slot:
    """Loads the model and the latest bars once; answers from memory.

    What is wrong with the model or the data does not end the replica: a restart would not mend it. The
    slot answers 503 with the reason instead.
    """

    def __init__(self, config: SlotConfig) -> None:
        self._config = config
        self._forecaster: Forecaster | None = None
        self._latest: Row | None = None
        self._broken: Problem | None = None
        try:
            self._load()
        except MarketrayError as e:
            logger.error("slot %s cannot serve: %s", config.slot, e)  # noqa: TRY400  # expected, no trace
            kind = "no-state" if self._forecaster is not None else "no-model"
            title = "No usable bars" if self._forecaster is not None else "No usable model"
            self._broken = problem(kind, 503, title, e.message, hint=e.hint)

    async def status(self) -> SlotStatus:
        """Whether a model and fresh bars are there."""
        return SlotStatus(self._not_ready(), self._info())

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> dict[str, Any] | Problem:
        """Forecast from `bars`, or from the latest state; a problem where there is no honest answer."""
        if self._forecaster is None or (bars is None and self._latest is None):
            assert self._broken is not None
            return self._broken
        served = self._forecaster.card.instrument
        if instrument is not None and instrument != served:
            return problem(
                "unknown-instrument",
                422,
                "This instrument is not served",
                f"instrument: got {instrument!r}; required: {served!r}",
                got=ascii(instrument),
                required=served,
            )
        if bars is None:
            stale = self._not_ready()
            return stale if stale is not None else self._answer(self._latest)
        return await asyncio.to_thread(self._from_request, bars)

    def _from_request(self, bars: pl.DataFrame) -> dict[str, Any] | Problem:
        assert self._forecaster is not None
        news = self._news(bars)
        if isinstance(news, Problem):
            return news
        try:
            row = self._forecaster.row(bars, news)
        except (DataError, SettingsError) as e:  # settings: the calendar does not reach the dates
            got, _, required = e.message.partition("; required: ")
            return problem(
                "unusable-bars",
                422,
                "The bars cannot be used",
                e.message,
                got=got.partition("got ")[2] or got,
                required=required or None,
                hint=e.hint,
            )
        return self._answer(row, status=422)

    def _answer(self, row: Row | None, status: int = 503) -> dict[str, Any] | Problem:
        assert self._forecaster is not None
        assert row is not None
        try:
            forecast = self._forecaster.forecast(row)
        except MarketrayError as e:
            return problem("no-forecast", status, "The model has no forecast", e.message, hint=e.hint)
        return _body(self._config, self._forecaster, row, forecast)

    def _load(self) -> None:
        from marketray.lake import Lake
        from marketray.serving.forecaster import Forecaster
        from marketray.serving.state import read_tail

        config, settings = self._config, self._config.settings
        forecaster = Forecaster(Path(config.folder))
        self._forecaster = forecaster
        instrument = forecaster.card.instrument
        lake, rows, interval = Lake(settings.lake_uri), forecaster.lookback, forecaster.interval
        bars = read_tail(lake, instrument, rows, interval=interval)
        if bars.is_empty():
            msg = f"bronze/bars holds no bar of {instrument} in {settings.lake_uri}"
            raise DataError(msg, hint="run `marketray ingest` first")
        now = self._now(bars["time"][-1] + interval)
        if bars["time"][-1] + interval > now:
            bars = read_tail(lake, instrument, rows, interval=interval, until=now)
        news = self._news(bars)
        if isinstance(news, Problem):
            logger.error("slot %s cannot serve: %s", config.slot, news.detail)
            self._broken = news
            return
        self._latest = forecaster.row(bars, news)
        forecaster.forecast(self._latest)  # warms the model up and proves that it answers

    def _news(self, bars: pl.DataFrame) -> pl.DataFrame | Problem | None:
        """The lake's scored articles that decisions on these bars can know; None where none are needed.

        A problem where they cannot be read, or are not scored by what scored them for the model's training.
        """
        from marketray.lake import Lake
        from marketray.sentiment.store import months_between, news_contents, read_news, stored_scorer

        assert self._forecaster is not None
        if not self._forecaster.catalog.news_columns or bars.is_empty():
            return None
        lake, card = Lake(self._config.settings.lake_uri), self._forecaster.card
        try:
            stored = news_contents(lake, card.instrument)
            months = months_between(stored, bars["time"][0], bars["time"][-1])
            scorer = stored_scorer(lake, card.instrument, months) if card.scorer is not None else None
            if scorer in (None, card.scorer):
                return read_news(lake, card.instrument, months)
        except LakeError as e:
            return problem("no-news", 503, "No usable news", e.message, hint=e.hint)
        return _other_scorer(scorer, card.scorer)

    def _now(self, data_end: datetime) -> datetime:
        from marketray.ingest.clock import fixed_clock

        return fixed_clock(self._config.settings) or data_end

    def _not_ready(self) -> Problem | None:
        if self._broken is not None or self._latest is None:
            return self._broken
        end = self._latest.decision_at
        age = self._now(end) - end
        most = self._config.settings.serving.max_bar_age_minutes
        if age <= timedelta(minutes=most):
            return None
        minutes = age.total_seconds() / 60
        return problem(
            "stale-bars",
            503,
            "No fresh bar",
            f"the last bar ended at {end.isoformat()}, {minutes:.1f} minutes ago; required: at most {most:g}",
            got=f"{minutes:.1f} minutes",
            required=f"at most {most:g} minutes (serving.max_bar_age_minutes)",
            hint="ingest newer bars, or send bars in the request",
        )

    def _info(self) -> dict[str, Any] | None:
        if self._forecaster is None:
            return None
        card, config = self._forecaster.card, self._config
        return {
            "model_name": config.model_name,
            "model_version": config.model_version,
            "model_type": card.model_type,
            "task": card.task,
            "instrument": card.instrument,
            "horizon_minutes": card.horizon_minutes,
            "bar_interval_minutes": card.bar_interval_minutes,
            "slot": config.slot,
            "features": list(card.columns),
            "inputs": list(self._forecaster.inputs),
            "lookback_bars": self._forecaster.lookback,
            "feature_catalog": card.catalog_hash,
            "scorer": card.scorer,
            "test_rmse_pct": card.test_rmse_pct,
            "evidence": card.evidence.model_dump(),
            "uncertainty": _uncertainty(self._forecaster),
            "last_bar_end_at": self._latest.decision_at if self._latest is not None else None,
        }


def _body(config: SlotConfig, forecaster: Forecaster, row: Row, forecast: Forecast) -> dict[str, Any]:
    """The answer without what only the ingress knows (request id, latency)."""
    card = forecaster.card
    r = forecast.predicted_return
    intervals = [
        {"level": level, "low": row.last_close * (1 + low), "high": row.last_close * (1 + high)}
        for level, low, high in forecast.intervals
    ]
    return {
        "timestamp": row.decision_at,
        "target_at": row.decision_at + timedelta(minutes=card.horizon_minutes),
        "instrument": card.instrument,
        "horizon_minutes": card.horizon_minutes,
        "last_close": row.last_close,
        "prediction": None if r is None else row.last_close * (1 + r),
        "predicted_return": r,
        "direction": forecast.direction,
        "confidence": forecast.confidence,
        "probability_up": forecast.probability_up,
        "interval": next((i for i in intervals if i["level"] == _INTERVAL_LEVEL), None),
        "intervals": intervals or None,
        "features_used": len(card.columns),
        "model_version": config.model_version,
        "model_type": card.model_type,
        "slot": config.slot,
        "test_rmse_pct": card.test_rmse_pct,
        "feature_catalog": card.catalog_hash,
        "evidence": card.evidence.model_dump(),
    }


def _other_scorer(got: str | None, required: str | None) -> Problem:
    return problem(
        "other-scorer",
        503,
        "The news is scored by another model",
        f"the lake's news is scored by {got}, the model was trained on scores of {required}; required: equal",
        got=got,
        required=required,
        hint="score the news as for the training (sentiment.model, revision, dtype, max_tokens, text), or "
        "train the model again on these scores",
    )


def _uncertainty(forecaster: Forecaster) -> dict[str, Any] | None:
    """Where the intervals come from, for /model-info."""
    found = forecaster.uncertainty
    if found is None:
        return None
    return {"method": found.method, "levels": list(found.tracker.levels), "as_of": found.as_of}
