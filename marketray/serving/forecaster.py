"""From bars to a forecast with one stored model: plain functions, no web, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.bars import OPTIONAL, REQUIRED
from marketray.errors import DataError, ModelError
from marketray.evaluation.uncertainty import Uncertainty
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.features.row import RowPlan
from marketray.models import load_model
from marketray.serving.card import read_card
from marketray.sessions import month_sessions

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.features.catalog import Catalog
    from marketray.features.online import OnlineState
    from marketray.features.row import FeatureRow
    from marketray.serving.card import ModelCard
    from marketray.sessions import Sessions

__all__ = ["Forecast", "Forecaster", "Row"]


@dataclass(frozen=True)
class Row:
    """One decision.

    Attributes
    ----------
    decision_at, last_close:
        Its time, UTC, and the price it starts from.
    values:
        The model's features, float32 of shape (1, p).
    volatilities:
        Features that the intervals are scaled by, float32 of shape (k,); none for a model without intervals.
    minutes_since_open:
        Time since the session's open.
    """

    decision_at: datetime
    last_close: float
    values: npt.NDArray[np.float32]
    volatilities: npt.NDArray[np.float32]
    minutes_since_open: float


@dataclass(frozen=True)
class Forecast:
    """What a model says of one row.

    Attributes
    ----------
    predicted_return:
        A fraction; None for a direction model.
    probability_up:
        P(label > 0), calibrated where the model has its uncertainty beside it. Without, a direction model's
        own answer, and None for any other.
    confidence:
        Calibrated P(the label has the forecast's direction); None without uncertainty.
    intervals:
        (level, low, high) of the return, fractions, by level; empty without uncertainty.
    """

    predicted_return: float | None
    probability_up: float | None
    confidence: float | None = None
    intervals: tuple[tuple[float, float, float], ...] = ()

    @property
    def direction(self) -> str:
        """Sign of the predicted return (of P(up) - 1/2): up, down or flat."""
        lean = self.predicted_return
        if lean is None:
            lean = (self.probability_up or 0.0) - 0.5
        return "up" if lean > 0 else "down" if lean < 0 else "flat"


class Forecaster:
    """A model folder (native artefact, ``model.json``, ``serving.json``) made ready to forecast.

    Intervals and calibrated probabilities come from ``uncertainty.json``, where the folder has it. Their
    widths stand as of its last label: no label that ends while the model serves moves them.

    Raises
    ------
    ModelError
        The folder is not usable, or this code computes other features than the model was trained on.
    """

    def __init__(self, folder: Path) -> None:
        self.card: ModelCard = read_card(folder)
        self.model = load_model(folder)
        self.catalog = _matching_catalog(self.card)
        if tuple(self.model.columns) != self.card.columns:
            msg = f"{folder}: serving.json names {len(self.card.columns)} columns, model.json others"
            raise ModelError(msg, hint="register the model again with `marketray select`")
        self.uncertainty = _matching_uncertainty(folder, self.card)
        scale = () if self.uncertainty is None else self.uncertainty.scale.columns
        _require_scorer(folder, self.card, self.catalog)
        missing = sorted({*self.card.columns, *scale} - set(self.catalog.names))
        if missing:
            msg = f"{folder}: the model needs the features {missing}, which the catalog lacks"
            raise ModelError(msg, hint="serve it with the version of marketray it was trained with")
        self._plan = RowPlan(self.catalog)
        self._places = [self.catalog.names.index(name) for name in self.card.columns]
        self._scale_places = [self.catalog.names.index(name) for name in scale]

    @property
    def lookback(self) -> int:
        """Bars needed for one forecast."""
        return self.catalog.lookback

    @property
    def inputs(self) -> tuple[str, ...]:
        """Optional bar columns that the features need."""
        return tuple(c for c in OPTIONAL if c in self.catalog.columns)

    @property
    def interval(self) -> timedelta:
        """Length of a bar."""
        return timedelta(minutes=self.card.bar_interval_minutes)

    def row(self, bars: pl.DataFrame, news: pl.DataFrame | None = None) -> Row:
        """Features of the decision at the end of the last bar.

        Parameters
        ----------
        bars:
            Sorted bars with the columns `marketray.serving.state.BAR_COLUMNS`.
        news:
            Scored articles up to the decision, as for `marketray.features.kernel.compute`.

        Raises
        ------
        DataError
            Too few bars, bars of another interval, bars off the minute grid or too far apart, a missing
            input column, or a last bar outside the trading sessions.
        """
        self._check(bars)
        bars = bars.tail(self.lookback)
        sessions = self._sessions(bars)
        session = int(sessions.locate(bars["time"].tail(1))[0])
        if session < 0:
            msg = (
                f"the last bar opens at {bars['time'][-1].isoformat()}; required: inside the trading "
                f"sessions of {self.card.market.calendar} without its breaks {list(self.card.market.breaks)}"
            )
            raise DataError(msg)
        return self._row(self._plan.evaluate(bars, sessions, news), sessions, session, bars)

    def decision(self, state: OnlineState) -> Row:
        """The decision at the end of the last bar of a state of this model's catalog and market."""
        assert state.row is not None
        sessions = self._sessions(state.bars)
        session = int(sessions.locate(state.bars["time"].tail(1))[0])
        return self._row(state.row, sessions, session, state.bars)

    def _row(self, row: FeatureRow, sessions: Sessions, session: int, bars: pl.DataFrame) -> Row:
        known = row.values.astype(np.float32)
        since = row.decision_at - sessions.frame["open_at"][session]
        return Row(
            decision_at=row.decision_at,
            last_close=float(bars["close"][-1]),
            values=known[self._places].reshape(1, -1),
            volatilities=known[self._scale_places],
            minutes_since_open=since / timedelta(minutes=1),
        )

    def values(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The model's answers for rows of its features, in its order, shape (n,); see `forecast`."""
        values = np.asarray(self.model.predict(rows), np.float64)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            msg = f"the model answered {values[wrong[0]]} for row {wrong[0]}; required: a finite number"
            raise ModelError(msg, hint="roll back to another version")
        return values

    def forecast(self, row: Row) -> Forecast:
        """The model's answer for `row`.

        Raises
        ------
        ModelError
            The model refuses the row (a feature it cannot do without is missing) or answers no number.
        """
        value = float(self.values(row.values)[0])
        predicted, up = (None, value) if self.card.task == "direction" else (value, None)
        if self.uncertainty is None:
            return Forecast(predicted, up)
        answer = self.uncertainty.at(value, row.volatilities, row.minutes_since_open)
        return Forecast(predicted, answer.probability_up, answer.confidence, answer.intervals)

    def _check(self, bars: pl.DataFrame) -> None:
        if len(bars) < self.lookback:
            msg = f"got {len(bars)} bars; required: at least {self.lookback}, the features' lookback"
            raise DataError(msg, hint="send more bars before the last one")
        bars = bars.tail(self.lookback)
        for name in self.inputs:
            known = len(bars) - bars[name].null_count()
            if known == 0:
                msg = f"bars.{name}: got no value; required by this model's features"
                raise DataError(msg, hint=f"send {name} with every bar")
        step, minute = self.card.bar_interval_minutes, bars["time"].dt.epoch("us") % 60_000_000
        gap = cast("timedelta", bars["time"].diff().min()) if len(bars) > 1 else self.interval
        if int(minute.max()) != 0 or gap < self.interval:  # type: ignore[arg-type]
            msg = f"bars.time: got times off the grid; required: whole minutes, at least {step} apart"
            raise DataError(msg)
        if gap > self.interval:
            msg = f"bars.time: no two bars are less than {gap} apart; required: bars of {step} min"
            raise DataError(msg, hint="send bars of the interval the model was trained on")
        span: timedelta = bars["time"][-1] - bars["time"][0]
        most = 10 * self.lookback * self.interval + timedelta(days=14)
        if span > most:
            msg = f"the last {self.lookback} bars span {span.days} days; required: at most {most.days}"
            raise DataError(msg, hint="send bars without long holes")

    def _sessions(self, bars: pl.DataFrame) -> Sessions:
        return month_sessions(self.card.market, bars["time"][0].date(), bars["time"][-1].date())


def _require_scorer(folder: Path, card: ModelCard, catalog: Catalog) -> None:
    """A model that sees news must say whose scores it was trained on."""
    seen = [f.name for f in catalog.features if NEWS in f.inputs and f.name in card.columns]
    if seen and card.scorer is None:
        msg = (
            f"{folder}: the model sees the news ({seen[0]}); serving.json has scorer=None; required: its name"
        )
        raise ModelError(msg, hint="train the model again on scored news, from the dataset stage on")


def _matching_uncertainty(folder: Path, card: ModelCard) -> Uncertainty | None:
    """The uncertainty beside the model, of the same label; None where there is none."""
    found = Uncertainty.read(folder)
    if found is not None and (found.task, found.horizon_minutes) != (card.task, card.horizon_minutes):
        msg = (
            f"{folder}: uncertainty.json is of {found.task} over {found.horizon_minutes} minutes; required: "
            f"{card.task} over {card.horizon_minutes}, as serving.json says"
        )
        raise ModelError(msg, hint="register the model again with `marketray select`")
    return found


def _matching_catalog(card: ModelCard) -> Catalog:
    """The catalog that the model was trained on."""
    catalog = build_catalog(
        card.feature_settings, (*REQUIRED, *card.feature_inputs), card.bar_interval_minutes
    )
    if catalog.hash != card.catalog_hash:
        msg = (
            f"feature catalog: this code has {catalog.hash}, the model was trained on {card.catalog_hash}; "
            "required: equal"
        )
        raise ModelError(msg, hint="train the model again, or serve it with the version it was trained with")
    return catalog
