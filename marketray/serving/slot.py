"""A slot: a place for one model version behind the ingress. Which one, the traffic log says."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError, RegistryError, StoreError
from marketray.serving.answers import Answer, Batch, Identity
from marketray.serving.problems import problem
from marketray.serving.schemas import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import polars as pl

    from marketray.features.online import Refusal
    from marketray.serving.live import LiveModel
    from marketray.settings import Settings

__all__ = ["Slot", "SlotStatus"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_LONGEST_POLL_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_OF_THE_MODEL = frozenset({"no-forecast", "no-news", "other-scorer"})  # problems that another model may lack


@dataclass(frozen=True)
class SlotStatus:
    """Whether the slot can answer now; `problem` says why not, `info` is /model-info's content.

    `version` is the one that answers, None where there is none.
    """

    problem: Problem | None
    info: dict[str, Any] | None
    version: int | None


@dataclass(frozen=True)
class _Refused:
    """A version that is wanted and not in place, why, and when to try again (monotonic; infinity: never)."""

    version: int
    problem: Problem
    retry_at: float


class Slot:
    """Holds the version that the traffic log gives it, and the state its forecasts start from.

    One thread follows the log and the live bars, loads what is new, and puts it in place when it is ready:
    until then, and where it cannot be loaded or has no forecast, the version before answers. What is wrong
    with a model or the data does not end the replica, a restart would not mend it; the slot says so in
    `status` and `refresh` instead.

    Parameters
    ----------
    name:
        blue or green.
    fetch:
        Gives the folder with a version's files on this machine; raises RegistryError.
    """

    def __init__(self, name: str, settings: Settings, fetch: Callable[[int], Path]) -> None:
        self._name = name
        self._settings = settings
        self._fetch = fetch
        self._model: LiveModel | None = None
        self._refused: _Refused | None = None
        self._told = ""
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._looks = threading.Condition()
        self._begun = self._done = 0
        from marketray.serving.store.database import Database
        from marketray.serving.store.live_bars import LiveBars
        from marketray.serving.store.traffic_log import TrafficLog

        database = Database(settings.store_uri)
        database.create()
        self._log, self._bars = TrafficLog(database), LiveBars(database)
        self._follow_once()
        self._thread = threading.Thread(
            target=_follow,
            args=(weakref.ref(self), self._wake, self._closed),
            name=f"slot-{name}",
            daemon=True,
        )
        self._thread.start()

    async def status(self) -> SlotStatus:
        """Whether a model and fresh bars are there."""
        model = self._model
        if model is None:
            return SlotStatus(self._nothing(), None, None)
        latest = model.latest()
        found = latest if isinstance(latest, Problem) else None
        return SlotStatus(found, _info(model), model.identity.model_version)

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> Answer | Problem:
        """Forecast from `bars`, or from the latest state; a problem where there is no honest answer."""
        model = self._model
        if model is None:
            return self._nothing()
        if instrument is not None and instrument != model.instrument:
            return _other_instrument(instrument, model.instrument)
        if bars is None:
            return model.latest()
        return await asyncio.to_thread(model.from_bars, bars)

    async def predict_features(self, columns: Sequence[str], rows: npt.NDArray[Any]) -> Batch | Problem:
        """The model's answers for rows of features and what it is, see `LiveModel.from_features`."""
        model = self._model
        if model is None:
            return self._nothing()
        values = await asyncio.to_thread(model.from_features, columns, rows)
        return values if isinstance(values, Problem) else Batch(_info(model), values)

    async def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        """Why each of the bars cannot be appended, see `LiveModel.refusals`; a problem without a state."""
        model = self._model
        if model is None:
            return self._nothing()
        return await asyncio.to_thread(model.refusals, bars)

    async def version(self) -> int | None:
        """The version that answers; None where there is none."""
        model = self._model
        return None if model is None else model.identity.model_version

    async def refresh(self) -> tuple[int | None, str | None]:
        """Look at the log and the live bars now; the version that answers then.

        And why that is not the wanted one, or why the wanted one has no forecast though another model may.
        """
        with self._looks:
            awaited = self._begun + 1  # the look that is under way may have begun too early
        self._wake.set()

        def wait() -> None:
            with self._looks:
                self._looks.wait_for(lambda: self._done >= awaited or self._closed.is_set(), timeout=60)

        await asyncio.to_thread(wait)
        refused, model = self._refused, self._model
        if refused is not None:
            return await self.version(), refused.problem.detail
        found = None if model is None else _of_the_model(model.latest())
        return await self.version(), None if found is None else found.detail

    def check_health(self) -> None:
        """Called by Serve; a slot that no longer follows the log is replaced."""
        if not self._thread.is_alive():
            msg = f"slot {self._name} does not follow the traffic log any more; its log has the cause"
            raise RuntimeError(msg)

    def __del__(self) -> None:
        self._closed.set()
        self._wake.set()

    def _follow_once(self) -> None:
        with self._looks:
            self._begun += 1
        try:
            entry = self._log.current()
            self._load(None if entry is None else entry.traffic.models[self._name])
            if self._model is not None:
                self._model.catch_up(self._bars)
            self._told = ""
        except StoreError as e:  # what is loaded goes on answering
            if e.message != self._told:
                logger.warning("slot %s: %s", self._name, e)
                self._told = e.message
        with self._looks:
            self._done = self._begun
            self._looks.notify_all()

    def _load(self, wanted: int | None) -> None:
        """Put the wanted version in place, ready to answer."""
        refused, model = self._refused, self._model
        if refused is not None and refused.version != wanted:
            refused = self._refused = None
        if wanted is None:
            self._model = None
            return
        if model is not None and model.identity.model_version == wanted:
            return
        if refused is not None and time.monotonic() < refused.retry_at:
            return
        from marketray.serving.live import LiveModel

        try:
            identity = Identity(self._name, self._settings.model_name, wanted)
            made = LiveModel(identity, self._fetch(wanted), self._settings)
        except MarketrayError as e:
            found = problem("no-model", 503, "No usable model", e.message, hint=e.hint)
            self._refuse(wanted, found, str(e), mends=isinstance(e, RegistryError))
            return
        made.catch_up(self._bars)
        found_now = _of_the_model(made.latest())
        if model is not None and found_now is not None:  # the version before can do better
            self._refuse(wanted, found_now, found_now.detail, mends=True)
            return
        self._model, self._refused = made, None

    def _refuse(self, version: int, found: Problem, cause: str, *, mends: bool) -> None:
        """Leave the slot as it is and log the cause; try again only where time may mend it."""
        if self._refused is None or self._refused.problem != found:
            logger.error("slot %s cannot serve version %d: %s", self._name, version, cause)
        retry_at = time.monotonic() + _RETRY_SECONDS if mends else math.inf
        self._refused = _Refused(version, found, retry_at)

    def _nothing(self) -> Problem:
        refused = self._refused
        if refused is not None:
            why = refused.problem.detail
            detail = f"slot {self._name} cannot serve version {refused.version}: {why}"
            return refused.problem.model_copy(update={"detail": detail})
        detail = f"slot {self._name} is empty"
        return problem("no-model", 503, "No model", detail, hint="see marketray traffic show")


def _follow(slot: weakref.ref[Slot], wake: threading.Event, closed: threading.Event) -> None:
    """Look at the store as long as the slot lives, for less than a tenth of the time."""
    pause = _POLL_SECONDS
    while not closed.is_set():
        wake.wait(pause)
        wake.clear()
        alive = slot()
        if alive is None:
            return
        began = time.monotonic()
        alive._follow_once()
        pause = min(_LONGEST_POLL_SECONDS, max(_POLL_SECONDS, 10 * (time.monotonic() - began)))
        del alive


def _of_the_model(latest: Answer | Problem) -> Problem | None:
    """The problem, where it is the model's own."""
    own = isinstance(latest, Problem) and latest.kind in _OF_THE_MODEL
    return latest if isinstance(latest, Problem) and own else None


def _other_instrument(got: str, served: str) -> Problem:
    return problem(
        "unknown-instrument",
        422,
        "This instrument is not served",
        f"instrument: got {got!r}; required: {served!r}",
        got=ascii(got),
        required=served,
    )


def _info(model: LiveModel) -> dict[str, Any]:
    """Content of /model-info."""
    forecaster = model.forecaster
    card = forecaster.card
    found = forecaster.uncertainty
    uncertainty = None
    if found is not None:
        uncertainty = {"method": found.method, "levels": list(found.tracker.levels), "as_of": found.as_of}
    return {
        "model_name": model.identity.model_name,
        "model_version": model.identity.model_version,
        "model_type": card.model_type,
        "task": card.task,
        "instrument": card.instrument,
        "horizon_minutes": card.horizon_minutes,
        "bar_interval_minutes": card.bar_interval_minutes,
        "slot": model.identity.slot,
        "features": list(card.columns),
        "inputs": list(forecaster.inputs),
        "lookback_bars": forecaster.lookback,
        "feature_catalog": card.catalog_hash,
        "scorer": card.scorer,
        "test_rmse_pct": card.test_rmse_pct,
        "evidence": card.evidence.model_dump(),
        "uncertainty": uncertainty,
        "last_bar_end_at": model.last_bar_end_at,
    }
