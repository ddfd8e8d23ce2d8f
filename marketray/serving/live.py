"""A registered model with the state that its forecasts start from: the lake's last bars and the live ones."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from marketray.errors import DataError, LakeError, MarketrayError, SettingsError, StoreError
from marketray.features.online import OnlineState
from marketray.ingest.clock import fixed_clock
from marketray.lake import Lake
from marketray.models.columns import lag_columns
from marketray.sentiment.store import months_between, news_contents, read_news, stored_scorer
from marketray.serving.answers import Answer, answer
from marketray.serving.forecaster import Forecaster
from marketray.serving.problems import problem
from marketray.serving.schemas import Problem
from marketray.serving.state import read_tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from marketray.features.online import Refusal
    from marketray.serving.answers import Identity
    from marketray.serving.store.live_bars import LiveBars
    from marketray.settings import Settings

__all__ = ["LiveModel"]

logger = logging.getLogger(__name__)

_BARS = "bronze/bars"
_APPENDED = 20  # that many bars are appended one by one; more cost less when the state is made anew


class _NewsError(LakeError):
    """The scored articles cannot be read."""


class LiveModel:
    """One version, ready to answer.

    The state that it forecasts from follows from the lake and the live bars alone: the lake's bars, after its
    last one the live bars, of those that ended by the clock the last ones. Appending a bar to the state is a
    shorter way to the same. What is wrong with the bars is no error here: the answer is a problem until they
    are right. Not thread-safe, but all other methods may be called while one thread is in `catch_up`.

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
        self._since = "9999-12"  # month of the first bar that is used
        self._content: tuple[object, ...] | None = None
        self._lake_end: datetime | None = None
        self._live = 0
        self._told = ""
        self._latest: Answer | Problem = problem("no-state", 503, "No usable bars", "no bars were read yet")

    @property
    def last_bar_end_at(self) -> datetime | None:
        """End of the last bar of the state, UTC; None where there is no state."""
        state = self._state
        return None if state is None or state.row is None else state.row.decision_at

    def catch_up(self, live: LiveBars) -> bool:
        """Take what is new in the lake and among the live bars; whether the latest forecast is another one.

        Raises
        ------
        StoreError
            The live bars cannot be read; what is known stands.
        """
        before = self._latest
        try:
            self._look(live)
            self._told = ""
        except StoreError:
            raise
        except LakeError as e:
            self._content = None  # look again, also where nothing changes
            if self._state is None:
                news = isinstance(e, _NewsError)
                self._cannot("no-news" if news else "no-state", f"No usable {'news' if news else 'bars'}", e)
            elif e.message != self._told:  # what is known stands, until it is too old
                logger.warning("slot %s: %s", self.identity.slot, e)
                self._told = e.message
        except MarketrayError as e:
            self._cannot("no-state", "No usable bars", e)
            self._state = None
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
        except _NewsError as e:
            logger.warning("slot %s has no news for bars of a request: %s", self.identity.slot, e)
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
            return _no_forecast(e)
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
        ordered = np.ascontiguousarray(rows[:, order], np.float32)
        try:
            return self.forecaster.values(ordered)
        except MarketrayError as e:
            lags = [needed.index(name) for name in lag_columns(needed)]
            if np.isnan(ordered[:, lags]).any():  # a value that the caller left out
                return problem(
                    "unusable-features", 422, "The features cannot be used", e.message, hint=e.hint
                )
            return _no_forecast(e)

    def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        """Why each of the bars, taken in this order, could not be appended; None where it could.

        A problem where there is no state to append to.
        """
        state, latest = self._state, self._latest
        if state is not None:
            try:
                return state.refusals(bars, fixed_clock(self._settings))
            except SettingsError as e:  # the calendar does not reach the dates
                return problem("unusable-bars", 422, "The bars cannot be used", e.message, hint=e.hint)
        assert isinstance(latest, Problem)
        return latest

    def _cannot(self, kind: str, title: str, error: MarketrayError) -> None:
        """Answer with this problem from now on; it is logged once."""
        found = problem(kind, 503, title, error.message, hint=error.hint)
        if found != self._latest:
            logger.error("slot %s cannot serve: %s", self.identity.slot, error)
            self._latest = found

    def _look(self, live: LiveBars) -> None:
        """Bring the state to the end of what is known; leave it where nothing is new."""
        until = fixed_clock(self._settings)
        last_open = None if until is None else until - self.forecaster.interval
        count = live.count(self.instrument, after=self._lake_end, until=last_open)
        if self._contents() == self._content:
            if count == self._live:
                return
            if self._state is not None and self._append(live, count, last_open):
                return
        self._start_again(live, until, last_open)

    def _contents(self) -> tuple[object, ...]:
        """What tells whether the lake has changed: digests of the bars that are used, and of the news."""
        partitions = self._lake.partitions(_BARS, instrument=self.instrument)
        manifests = [self._lake.manifest(_BARS, p) for p in partitions if p["month"] >= self._since]
        bars = [None if m is None else m.content for m in manifests]
        news: tuple[object, ...] = ()
        if self.forecaster.catalog.news_columns:
            with _of_news():
                found = news_contents(self._lake, self.instrument)
                news = (*found.items(), stored_scorer(self._lake, self.instrument, list(found)))
        return len(partitions), *bars, *news

    def _append(self, live: LiveBars, count: int, last_open: datetime | None) -> bool:
        """Append the live bars that are new; False where they are no few that come after the last one."""
        assert self._state is not None
        last = self._state.bars["time"][-1]
        fresh = live.newest(self.instrument, _APPENDED + 1, after=last, until=last_open)
        if len(fresh) != count - self._live or len(fresh) > _APPENDED:
            return False
        try:
            for bar in fresh.iter_rows(named=True):
                self._state.append(bar, None)
        except DataError:
            return False
        self._live = count
        self._latest = self._answer(self.forecaster.decision(self._state))
        return True

    def _start_again(self, live: LiveBars, until: datetime | None, last_open: datetime | None) -> None:
        """Read the bars and make the state anew."""
        rows = self.forecaster.lookback
        while True:
            content = self._contents()  # before the bars, so that a change while they are read is seen
            bars = read_tail(
                self._lake, self.instrument, rows, interval=self.forecaster.interval, until=until
            )
            since = "" if bars.is_empty() else f"{bars['time'][0]:%Y-%m}"
            if since == self._since:
                break
            self._since = since
        end = None if bars.is_empty() else bars["time"][-1]
        count = live.count(self.instrument, after=end, until=last_open)
        newer = live.newest(self.instrument, rows, after=end, until=last_open)
        self._content, self._lake_end, self._live = content, end, count
        self._start_from(pl.concat([bars, newer.select(bars.columns)]).tail(rows))

    def _start_from(self, bars: pl.DataFrame) -> None:
        if bars.is_empty():
            msg = f"{_BARS} holds no bar of {self.instrument} in {self._settings.lake_uri}"
            raise DataError(msg, hint="run `marketray ingest` first")
        news = self._news(bars)
        if isinstance(news, Problem):
            if news != self._latest:
                logger.error("slot %s cannot serve: %s", self.identity.slot, news.detail)
            self._latest, self._state = news, None
            return
        card, catalog = self.forecaster.card, self.forecaster.catalog
        row = self.forecaster.row(bars, news)  # refuses what cannot be used
        self._latest = self._answer(row)
        self._state = OnlineState.from_bars(catalog, card.market, bars, news=news, from_start=True)

    def _answer(self, row: Any) -> Answer | Problem:
        try:
            forecast = self.forecaster.forecast(row)
        except MarketrayError as e:
            return _no_forecast(e)
        return answer(self.identity, self.forecaster, row, forecast)

    def _news(self, bars: pl.DataFrame) -> pl.DataFrame | Problem | None:
        """The lake's scored articles that decisions on these bars can know; None where none are needed.

        A problem where they are not scored by what scored them for the model's training.
        """
        if not self.forecaster.catalog.news_columns or bars.is_empty():
            return None
        scorer = self.forecaster.card.scorer
        with _of_news():
            stored = news_contents(self._lake, self.instrument)
            months = months_between(stored, bars["time"][0], bars["time"][-1])
            found = stored_scorer(self._lake, self.instrument, months) if scorer is not None else None
            if found in (None, scorer):
                return read_news(self._lake, self.instrument, months)
        return _other_scorer(found, scorer)

    def _now(self, data_end: datetime) -> datetime:
        return fixed_clock(self._settings) or data_end


@contextlib.contextmanager
def _of_news() -> Iterator[None]:
    """Whatever of the lake cannot be read in the block is the news."""
    try:
        yield
    except LakeError as e:
        raise _NewsError(e.message, hint=e.hint) from e


def _no_forecast(error: MarketrayError) -> Problem:
    """The model's failure, not the caller's: another model may have a forecast for the same row."""
    return problem("no-forecast", 503, "The model has no forecast", error.message, hint=error.hint)


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
