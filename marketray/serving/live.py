"""A registered model with the state that its forecasts start from: the lake's last bars and the live ones."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from marketray.errors import DataError, LakeError, MarketrayError, SettingsError
from marketray.features.online import OnlineState
from marketray.ingest.clock import fixed_clock
from marketray.lake import Lake
from marketray.sentiment.store import months_between, news_contents, read_news, stored_scorer
from marketray.serving.answers import Answer, answer
from marketray.serving.forecaster import Forecaster
from marketray.serving.problems import problem
from marketray.serving.schemas import Problem
from marketray.serving.state import read_tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from marketray.features.online import Refusal
    from marketray.serving.answers import Identity
    from marketray.settings import Settings

__all__ = ["LiveModel"]

logger = logging.getLogger(__name__)

_APPENDED = 20  # that many bars are appended one by one; more cost less when the state is made anew


class LiveModel:
    """One version, ready to answer.

    What is wrong with the bars is no error here: the answer is a problem until they are right. Not
    thread-safe, but `latest` and `from_bars` may be called while another thread is in `catch_up`.

    Raises
    ------
    ModelError
        The model's folder is not usable, or this code computes other features than it was trained on.
    """

    def __init__(self, identity: Identity, folder: Path, settings: Settings) -> None:
        self.identity = identity
        self.forecaster = Forecaster(folder)
        self.instrument = self.forecaster.card.instrument
        self._settings = settings
        self._lake = Lake(settings.lake_uri)
        self._state: OnlineState | None = None
        self._seen: tuple[tuple[object, ...], int] = ((), -1)
        self._latest: Answer | Problem = problem("no-state", 503, "No usable bars", "no bars were read yet")

    @property
    def last_bar_end_at(self) -> datetime | None:
        """Decision time of the latest state, UTC."""
        return self._latest.decision_at if isinstance(self._latest, Answer) else None

    def catch_up(self, live: pl.DataFrame) -> bool:
        """Take what is new in the lake and among the live bars; whether the latest forecast is another one.

        Parameters
        ----------
        live:
            Live bars of the instrument, sorted by time, at least those after the lake's last one.
        """
        before = self._latest
        try:
            seen = self._content(), len(live)
            if self._state is None and seen == self._seen:
                return False  # what could not be used is as it was
            fresh = live if self._state is None else live.filter(pl.col("time") > self._last_time())
            if self._state is None or seen[0] != self._seen[0] or len(fresh) > _APPENDED:
                self._start_again(live)
            else:
                self._append(fresh)
            self._seen = seen
        except LakeError as e:
            if self._state is None:
                self._cannot("no-news", "No usable news", e)
            else:  # what is known stands, until it is too old
                logger.warning("slot %s: %s", self.identity.slot, e)
        except MarketrayError as e:
            self._state, self._seen = None, seen
            self._cannot("no-state", "No usable bars", e)
        return self._latest is not before

    def latest(self) -> Answer | Problem:
        """The forecast from the last bar; a problem where that is too old, or there is none."""
        found = self._latest
        if isinstance(found, Problem):
            return found
        age = self._now(found.decision_at) - found.decision_at
        most = self._settings.serving.max_bar_age_minutes
        if age <= timedelta(minutes=most):
            return found
        return _stale(found.decision_at, age / timedelta(minutes=1), most)

    def from_bars(self, bars: pl.DataFrame) -> Answer | Problem:
        """The forecast from the bars of a request."""
        try:
            news = self._news(bars)
            if isinstance(news, Problem):
                return news
            row = self.forecaster.row(bars, news)
        except LakeError as e:
            return problem("no-news", 503, "No usable news", e.message, hint=e.hint)
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
        try:
            forecast = self.forecaster.forecast(row)
        except MarketrayError as e:
            return problem("no-forecast", 422, "The model has no forecast", e.message, hint=e.hint)
        return answer(self.identity, self.forecaster, row, forecast)

    def from_features(
        self, columns: Sequence[str], rows: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64] | Problem:
        """Values that the model answers for rows of features, shape (n,), in one call.

        Parameters
        ----------
        columns:
            Names of the features, in any order; each of the model's must be there.
        rows:
            Shape (n, len(columns)); NaN where a feature is missing.
        """
        needed = self.forecaster.card.columns
        if set(columns) != set(needed) or len(columns) != len(needed):
            missing, unknown = sorted(set(needed) - set(columns)), sorted(set(columns) - set(needed))
            got = f"{len(columns)} columns, which lack {missing[:5]} and have beside them {unknown[:5]}"
            return problem(
                "unusable-features", 422, "The features cannot be used",
                f"columns: got {got}; required: each of the model's {len(needed)} once",
                got=got, required=f"the {len(needed)} features of /model-info",
            )  # fmt: skip
        order = [columns.index(name) for name in needed]
        try:
            return self.forecaster.values(np.ascontiguousarray(rows[:, order], np.float32))
        except MarketrayError as e:
            return problem("no-forecast", 422, "The model has no forecast", e.message, hint=e.hint)

    def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None]:
        """Why each of the bars, taken in this order, could not be appended; None where it could.

        A bar that is already known with the same values is not refused.
        """
        return [] if self._state is None else self._state.refusals(bars, fixed_clock(self._settings))

    def _cannot(self, kind: str, title: str, error: MarketrayError) -> None:
        """Answer with this problem from now on; it is logged once."""
        found = problem(kind, 503, title, error.message, hint=error.hint)
        if found != self._latest:
            logger.error("slot %s cannot serve: %s", self.identity.slot, error)
            self._latest = found

    def _content(self) -> tuple[object, ...]:
        """What tells whether the lake has changed: digests of the last bars, and of the news that is seen."""
        partitions = self._lake.partitions("bronze/bars", instrument=self.instrument)
        manifest = self._lake.manifest("bronze/bars", partitions[-1]) if partitions else None
        news: tuple[object, ...] = ()
        if self.forecaster.catalog.news_columns:
            found = news_contents(self._lake, self.instrument)
            news = (*found.items(), stored_scorer(self._lake, self.instrument, list(found)))
        return len(partitions), manifest.content if manifest is not None else None, *news

    def _last_time(self) -> datetime:
        assert self._state is not None
        last: datetime = self._state.bars["time"][-1]
        return last

    def _start_again(self, live: pl.DataFrame) -> None:
        rows, interval = self.forecaster.lookback, self.forecaster.interval
        bars = read_tail(self._lake, self.instrument, rows, interval=interval)
        newer = live if bars.is_empty() else live.filter(pl.col("time") > bars["time"][-1])
        bars = pl.concat([bars, newer.select(bars.columns)]).tail(rows)
        if bars.is_empty():
            msg = f"bronze/bars holds no bar of {self.instrument} in {self._settings.lake_uri}"
            raise DataError(msg, hint="run `marketray ingest` first")
        now = self._now(bars["time"][-1] + interval)
        if bars["time"][-1] + interval > now:
            bars = read_tail(self._lake, self.instrument, rows, interval=interval, until=now)
        news = self._news(bars)
        if isinstance(news, Problem):
            logger.error("slot %s cannot serve: %s", self.identity.slot, news.detail)
            self._state, self._latest = None, news
            return
        card, catalog = self.forecaster.card, self.forecaster.catalog
        row = self.forecaster.row(bars, news)  # refuses what cannot be used
        self._latest = self._answer(row)
        self._state = OnlineState.from_bars(catalog, card.market, bars, news=news, from_start=True)

    def _append(self, fresh: pl.DataFrame) -> None:
        if fresh.is_empty():
            return
        assert self._state is not None
        for bar in fresh.iter_rows(named=True):
            self._state.append(bar, fixed_clock(self._settings))
        self._latest = self._answer(self.forecaster.decision(self._state))

    def _answer(self, row: Any) -> Answer | Problem:
        try:
            forecast = self.forecaster.forecast(row)
        except MarketrayError as e:
            return problem("no-forecast", 503, "The model has no forecast", e.message, hint=e.hint)
        return answer(self.identity, self.forecaster, row, forecast)

    def _news(self, bars: pl.DataFrame) -> pl.DataFrame | Problem | None:
        """The lake's scored articles that decisions on these bars can know; None where none are needed.

        A problem where they are not scored by what scored them for the model's training.
        """
        if not self.forecaster.catalog.news_columns or bars.is_empty():
            return None
        scorer = self.forecaster.card.scorer
        stored = news_contents(self._lake, self.instrument)
        months = months_between(stored, bars["time"][0], bars["time"][-1])
        found = stored_scorer(self._lake, self.instrument, months) if scorer is not None else None
        if found in (None, scorer):
            return read_news(self._lake, self.instrument, months)
        return _other_scorer(found, scorer)

    def _now(self, data_end: datetime) -> datetime:
        return fixed_clock(self._settings) or data_end


def _stale(end: datetime, minutes: float, most: float) -> Problem:
    return problem(
        "stale-bars",
        503,
        "No fresh bar",
        f"the last bar ended at {end.isoformat()}, {minutes:.1f} minutes ago; required: at most {most:g}",
        got=f"{minutes:.1f} minutes",
        required=f"at most {most:g} minutes (serving.max_bar_age_minutes)",
        hint="ingest newer bars, post them to /bars, or send bars in the request",
    )


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
