"""A slot: a place for one model version behind the ingress. Which one, the traffic log says."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError, RegistryError, StoreError
from marketray.serving.answers import Answer, Identity
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
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class SlotStatus:
    """Whether the slot can answer now; `problem` says why not, `info` is /model-info's content.

    `version` is the one that answers, None where there is none.
    """

    problem: Problem | None
    info: dict[str, Any] | None
    version: int | None


class Slot:
    """Holds the version that the traffic log gives it, and the state its forecasts start from.

    One thread follows the log and the live bars, loads what is new, and puts it in place when it is ready:
    until then, and where it cannot be loaded, the version before answers. What is wrong with a model or the
    data does not end the replica, a restart would not mend it; the slot says so in `status` instead.

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
        self._problem: Problem | None = None
        self._unusable: int | None = None
        self._retry_at = 0.0
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
        found = latest if isinstance(latest, Problem) else self._problem
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

    async def predict_features(
        self, columns: Sequence[str], rows: npt.NDArray[Any]
    ) -> tuple[dict[str, Any], npt.NDArray[Any]] | Problem:
        """The model's answers for rows of features and what it is, see `LiveModel.from_features`."""
        model = self._model
        if model is None:
            return self._nothing()
        values = await asyncio.to_thread(model.from_features, columns, rows)
        return values if isinstance(values, Problem) else (_info(model), values)

    async def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        """Why each of the bars cannot be appended, see `LiveModel.refusals`; a problem without a state."""
        model = self._model
        if model is None:
            return self._nothing()
        latest = model.latest()
        if isinstance(latest, Problem) and model.last_bar_end_at is None:
            return latest
        return model.refusals(bars)

    async def version(self) -> int | None:
        """The version that answers; None where there is none."""
        model = self._model
        return None if model is None else model.identity.model_version

    async def refresh(self) -> tuple[int | None, str | None]:
        """Look at the log and the live bars now; the version that answers then, and what is wrong."""
        with self._looks:
            awaited = self._begun + 1  # the look that is under way may have begun too early
        self._wake.set()

        def wait() -> None:
            with self._looks:
                self._looks.wait_for(lambda: self._done >= awaited or self._closed.is_set(), timeout=60)

        await asyncio.to_thread(wait)
        found = self._problem
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
            model = self._model
            if model is not None:
                model.catch_up(self._bars.since(model.instrument, model.last_bar_end_at))
        except StoreError as e:  # what is loaded goes on answering
            logger.warning("slot %s: %s", self._name, e)
        with self._looks:
            self._done = self._begun
            self._looks.notify_all()

    def _load(self, wanted: int | None) -> None:
        """Put the wanted version in place, ready to answer."""
        present = None if self._model is None else self._model.identity.model_version
        if wanted == present:
            self._problem = None
        if wanted is None:
            self._model = None
        if wanted in (None, present, self._unusable) or time.monotonic() < self._retry_at:
            return
        from marketray.serving.live import LiveModel

        identity = Identity(self._name, self._settings.model_name, wanted)
        try:
            made = LiveModel(identity, self._fetch(wanted), self._settings)
        except MarketrayError as e:
            logger.error("slot %s cannot serve version %d: %s", self._name, wanted, e)  # noqa: TRY400
            self._problem = problem("no-model", 503, "No usable model", e.message, hint=e.hint)
            if isinstance(e, RegistryError):  # which may come back
                self._retry_at = time.monotonic() + _RETRY_SECONDS
            else:
                self._unusable = wanted
            return
        made.catch_up(self._bars.since(made.instrument, None))
        self._model, self._problem, self._unusable = made, None, None

    def _nothing(self) -> Problem:
        detail = f"slot {self._name} is empty"
        return self._problem or problem(
            "no-model", 503, "No model", detail, hint="see marketray traffic show"
        )


def _follow(slot: weakref.ref[Slot], wake: threading.Event, closed: threading.Event) -> None:
    """Look at the store as long as the slot lives."""
    while not closed.is_set():
        wake.wait(_POLL_SECONDS)
        wake.clear()
        alive = slot()
        if alive is None:
            return
        alive._follow_once()
        del alive


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
