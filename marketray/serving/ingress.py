"""The ingress: HTTP in front of the slots, one object a replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marketray.errors import StoreError
from marketray.serving.answers import Answer, Batch
from marketray.serving.handles import ControlHandle
from marketray.serving.http.api import create_api
from marketray.serving.metrics import ServiceMetrics
from marketray.serving.problems import ProblemError, problem
from marketray.serving.rollouts.outcomes import Outcomes
from marketray.serving.router import Router, SlotError
from marketray.serving.schemas import Problem
from marketray.serving.slot_client import HandleClient
from marketray.serving.store import open_store
from marketray.serving.store.predictions import PredictionRow
from marketray.serving.store.writer import PredictionWriter
from marketray.serving.traffic import SLOTS, bucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle

    from marketray.features.online import Refusal
    from marketray.serving.control import Control
    from marketray.serving.http.auth import Token
    from marketray.serving.router import Ask, Attempt
    from marketray.serving.slot import Slot, SlotStatus
    from marketray.settings import Settings

__all__ = ["Ingress"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_LOOK_SECONDS = 0.5
_KEEP_SECONDS = 1.0  # of a slot's latest forecast
_PROBE_SECONDS = 2.0
_MEASURE_SECONDS = 5.0
_HISTORY = 100  # changes of the traffic, for the age of a slot's model


class Ingress:
    """Routes, counts and records; what it must not lose stands in the store."""

    def __init__(
        self,
        slots: dict[str, DeploymentHandle[Slot]],
        control: DeploymentHandle[Control],
        settings: Settings,
        token: Token | None = None,
    ) -> None:
        self.settings = settings
        self.token = token
        self._clients = {name: HandleClient(handle, _KEEP_SECONDS) for name, handle in slots.items()}
        self.control = ControlHandle(control)
        self.store = open_store(settings.store_uri)
        self._writer = PredictionWriter(self.store.predictions.record)
        self.outcomes = Outcomes(f"ingress-{uuid.uuid4().hex[:12]}")
        entry = self.store.traffic.current()
        assert entry is not None, "the application is built after its traffic was declared"
        self._entry = entry
        self.router = Router(
            self._clients,
            entry.traffic,
            self._done,
            self._paired,
            attempt_seconds=settings.serving.attempt_seconds,
            deadline_seconds=settings.serving.deadline_seconds,
        )
        self._misses = dict.fromkeys(SLOTS, 0)
        self._tasks: list[asyncio.Task[None]] = []
        self._told = ""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self, self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        works = self._follow(), self._measure(), *(self._watch(slot) for slot in SLOTS)
        self._tasks += map(asyncio.create_task, works)
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(self._writer.close, 5.0)

    def check_health(self) -> None:
        """Called by Serve; an ingress that looks after nothing any more is replaced."""
        if any(task.done() for task in self._tasks):
            msg = "the ingress does not follow the traffic or the slots any more; its log has the cause"
            raise RuntimeError(msg)

    async def refresh(self) -> int:
        """Take what is new at once: the traffic from the log, its number there, and the slots' forecasts."""
        self._forget()
        await self._take_traffic()
        return self._entry.seq

    async def _take_traffic(self) -> None:
        entry = await asyncio.to_thread(self.store.traffic.current)
        if entry is not None and entry.seq > self._entry.seq:
            self._entry = entry
            self.router.traffic = entry.traffic
            self._forget()

    def _forget(self) -> None:
        for client in self._clients.values():
            client.forget()

    async def snapshot(self) -> dict[str, Any]:
        """What it has counted, see `marketray.serving.rollouts.outcomes`, and which slots are `unwell`."""
        return {**self.outcomes.snapshot(), "unwell": self.router.unwell}

    @property
    def unwell(self) -> dict[str, str]:
        """Slots that get no traffic while another can answer, with the reason."""
        return self.router.unwell

    async def versions(self) -> dict[str, int | None]:
        """The version that each slot answers with now; None where it gives no answer."""
        return dict(zip(SLOTS, await asyncio.gather(*map(self._version, SLOTS)), strict=True))

    async def _version(self, slot: str) -> int | None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                version: int | None = await self._clients[slot].call("version")
        except (TimeoutError, SlotError):
            return None
        return version

    async def status(self, slot: str | None = None) -> SlotStatus:
        """Status of a slot, by default of the one that most requests go to; raises ProblemError."""
        status: SlotStatus = await self._asked(slot or self._busiest(), _PROBE_SECONDS, "status")
        return status

    async def latest(self) -> Answer | Problem:
        """The busiest slot's forecast, neither counted nor recorded; raises ProblemError."""
        slot = self._busiest()
        found: Answer | Problem = await self._within(slot, _PROBE_SECONDS, self._clients[slot].look())
        return found

    async def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        """Why the busiest slot could not append each of the bars; raises ProblemError."""
        seconds = self.settings.serving.deadline_seconds
        refused: list[Refusal | None] | Problem = await self._asked(
            self._busiest(), seconds, "refusals", bars
        )
        return refused

    def _busiest(self) -> str:
        traffic, unwell = self.router.traffic, self.router.unwell
        return max(SLOTS, key=lambda s: (traffic.models[s] is not None, s not in unwell, traffic.weights[s]))

    async def _asked(self, slot: str, seconds: float, method: str, *arguments: Any) -> Any:
        return await self._within(slot, seconds, self._clients[slot].call(method, *arguments))

    @staticmethod
    async def _within(slot: str, seconds: float, asked: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await asked
        except TimeoutError as e:
            detail = f"slot {slot} did not answer within {seconds:g} s"
            raise ProblemError(problem("slot-late", 503, "No answer in time", detail)) from e
        except SlotError as e:
            detail = f"slot {slot} gave no answer: {e}"
            raise ProblemError(problem(f"slot-{e.kind}", 503, "No replica", detail)) from e

    async def predict(self, ask: Ask) -> tuple[str, Answer | Problem]:
        """See `marketray.serving.router.Router.predict`."""
        return await self.router.predict(ask)

    async def predict_features(self, ask: Ask) -> tuple[str, Batch | Problem]:
        """See `marketray.serving.router.Router.predict_features`."""
        return await self.router.predict_features(ask)

    async def _follow(self) -> None:
        """Have the traffic of the log within a moment, also where the word to refresh was missed."""
        while True:
            try:
                await self._take_traffic()
                self._told = ""
            except StoreError as e:  # the split in force stands
                if e.message != self._told:
                    logger.warning("the traffic log cannot be read: %s", e)
                    self._told = e.message
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch(self, slot: str) -> None:
        """Keep the slot's latest forecast; take it out of the traffic where there is none, and back in."""
        while True:
            await self._probe(slot)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _probe(self, slot: str) -> None:
        if self.router.traffic.models[slot] is None:  # so it is to be
            self._misses[slot] = 0
            self.router.judge(slot, None)
            return
        reason: str | None
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                found = await self._clients[slot].look()
            empty = isinstance(found, Problem) and found.kind == "no-model"
            reason = "it holds no model" if empty else None
        except (TimeoutError, SlotError) as e:
            reason = str(e) or f"no answer within {_PROBE_SECONDS:g} s"
        self._misses[slot] = 0 if reason is None else self._misses[slot] + 1
        if reason is None or self._misses[slot] > 1:
            self.router.judge(slot, reason)

    async def _measure(self) -> None:
        """Pass on to Prometheus what was counted."""
        metrics = ServiceMetrics()
        while True:
            try:
                history = await asyncio.to_thread(self.store.traffic.history, _HISTORY)
                counted = self.outcomes.snapshot(), self._writer.counts, self.router.unwell
                metrics.publish(*counted, history, datetime.now(UTC))
            except StoreError as e:  # told by _follow too
                logger.debug("nothing is measured: %s", e)
            await asyncio.sleep(_MEASURE_SECONDS)

    def _done(self, attempt: Attempt) -> None:
        """Count and record one question to one slot."""
        ms = attempt.seconds * 1e3
        version = self.router.traffic.models[attempt.slot] or 0
        result = attempt.result
        if isinstance(result, Batch):  # one outcome, and its time a row, beside those of single rows
            self.outcomes.answered(attempt.slot, result.info["model_version"], ms / len(result.values))
        elif isinstance(result, Answer):
            version = result.identity.model_version
            self.outcomes.answered(attempt.slot, version, ms)
        elif attempt.failed and result.kind == "no-forecast":
            self.outcomes.answered(attempt.slot, version, ms, null=True)
        elif attempt.failed:
            self.outcomes.failed(attempt.slot, version, ms)
        elif result.status == 422:
            return  # the caller's mistake says nothing of the model
        if attempt.ask.features is not None:
            return  # rows of the caller's own making are no part of the record
        self._writer.put(_row(attempt, version, self.settings.model_name, self.settings.instrument))

    def _paired(self, shadow: Answer, served: Answer) -> None:
        ours, theirs = _lean(shadow), _lean(served)
        if ours is not None and theirs is not None:
            self.outcomes.paired(shadow.identity.slot, shadow.identity.model_version, ours, theirs)


def _lean(said: Answer) -> float | None:
    """The predicted return; of a direction model P(up) − ½."""
    if said.predicted_return is not None:
        return said.predicted_return
    return None if said.probability_up is None else said.probability_up - 0.5


def _row(attempt: Attempt, version: int, model_name: str, served: str) -> PredictionRow:
    """The attempt as the store keeps it."""
    ask, result = attempt.ask, attempt.result
    assert not isinstance(result, Batch)
    common: dict[str, Any] = {
        "request_id": ask.request_id if attempt.number == 1 else f"{ask.request_id}#{attempt.number}",
        "instrument": ask.instrument or served,
        "bars": "state" if ask.bars is None else "request",
        "slot": attempt.slot,
        "shadow": attempt.shadow,
        "model_name": model_name,
        "model_version": version,
        "latency_ms": attempt.seconds * 1e3,
        "client_bucket": None if ask.client is None else bucket(ask.client),
        "at": ask.at,
    }
    if isinstance(result, Problem):
        return PredictionRow(**common, status=result.status, problem=result.kind)
    return PredictionRow(
        **common,
        catalog_hash=result.catalog_hash,
        decision_at=result.decision_at,
        target_at=result.target_at,
        last_close=result.last_close,
        predicted_return=result.predicted_return,
        probability_up=result.probability_up,
        direction=result.direction,
        features_used=result.features_used,
    )
