"""Which slot answers a request, what happens where it does not, and who else is asked unseen."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from marketray.serving.answers import Answer, Batch
from marketray.serving.problems import problem
from marketray.serving.schemas import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import numpy.typing as npt
    import polars as pl

    from marketray.serving.traffic import Traffic

__all__ = ["Ask", "Attempt", "Router", "SlotClient", "SlotError"]

logger = logging.getLogger(__name__)

_NOT_THE_MODELS_FAULT = frozenset({"stale-bars", "no-state", "no-news", "other-scorer"})


class SlotError(Exception):
    """A slot gave no answer at all.

    Attributes
    ----------
    kind:
        ``unavailable`` (no replica, or it died), ``full`` (its queue is) or ``bug`` (its code failed).
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind

    @classmethod
    def unavailable(cls, why: str) -> SlotError:
        """No replica of the slot can answer."""
        return cls("unavailable", f"no replica can answer ({why})")

    @classmethod
    def full(cls) -> SlotError:
        """The slot has as many requests waiting as it may."""
        return cls("full", "its queue is full")

    @classmethod
    def bug(cls, what: str) -> SlotError:
        """The slot's code raised."""
        return cls("bug", f"its code failed ({what}); the service's log has the cause")


class SlotClient(Protocol):
    """How a slot is reached."""

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> Answer | Problem:
        """Its answer, or why there is none; raises SlotError where it cannot be reached."""
        ...

    async def predict_features(self, columns: Sequence[str], rows: npt.NDArray[Any]) -> Batch | Problem:
        """What its model says of rows of features; raises SlotError where it cannot be reached."""
        ...


@dataclass(frozen=True)
class Ask:
    """A request for a forecast.

    Attributes
    ----------
    request_id:
        Its name; also its key where the client gave none, so that it sticks to nothing.
    at:
        When it came, UTC.
    client:
        The client's own key (X-Client-Key), None where it gave none.
    instrument, bars:
        As in `marketray.serving.schemas.PredictRequest`, bars as a table.
    features:
        Names and rows of features that are asked for instead, shape (n, names).
    """

    request_id: str
    at: datetime
    client: str | None = None
    instrument: str | None = None
    bars: pl.DataFrame | None = None
    features: tuple[Sequence[str], npt.NDArray[Any]] | None = None


@dataclass(frozen=True)
class Attempt:
    """One question to one slot, as it is counted and recorded.

    Attributes
    ----------
    shadow:
        The client never saw the answer.
    number:
        Of the question in its request: 2 where the first slot asked had failed.
    failed:
        The slot is to blame: it died, was late, failed, or answered that it has no forecast.
    seconds:
        How long it took.
    """

    ask: Ask
    slot: str
    shadow: bool
    number: int
    result: Answer | Batch | Problem
    failed: bool
    seconds: float


class Router:
    """Asks the slot that the traffic's weights choose, once more elsewhere where that fails, and the shadow.

    Parameters
    ----------
    clients:
        The slots by name.
    traffic:
        The split in force; assign `traffic` to change it, between any two requests.
    done:
        Called with every finished attempt; must not block.
    paired:
        Called with a shadow's attempt and what the client was answered, where both are forecasts.
    attempt_seconds, deadline_seconds:
        Most time for the first question where another slot can be asked after it, and for all of them.
    """

    def __init__(
        self,
        clients: Mapping[str, SlotClient],
        traffic: Traffic,
        done: Callable[[Attempt], None],
        paired: Callable[[Answer, Answer], None],
        *,
        attempt_seconds: float,
        deadline_seconds: float,
    ) -> None:
        self.traffic = traffic
        self._clients = clients
        self._done = done
        self._paired = paired
        self._attempt_seconds = attempt_seconds
        self._deadline_seconds = deadline_seconds
        self._unwell: dict[str, str] = {}
        self._shadows: set[asyncio.Task[None]] = set()

    @property
    def unwell(self) -> dict[str, str]:
        """Slots that get no traffic while another can answer, with the reason."""
        return dict(self._unwell)

    def judge(self, slot: str, reason: str | None) -> None:
        """Take the slot out of the traffic for this reason; None takes it back in."""
        if reason is None:
            self._unwell.pop(slot, None)
        else:
            self._unwell[slot] = reason

    def choose(self, ask: Ask) -> str:
        """The slot that is asked first."""
        by_instrument = self.traffic.sticky == "instrument" and ask.instrument is not None
        key = ask.instrument if by_instrument else ask.client or ask.request_id
        assert key is not None
        chosen = self.traffic.choose(key)
        other = self._other(chosen)
        return other if chosen in self._unwell and other is not None else chosen

    async def predict(self, ask: Ask) -> tuple[str, Answer | Problem]:
        """The slot that answered, and its answer; a problem where no slot has one in time."""
        chosen = self.choose(ask)
        seen = self._ask_shadow(ask, chosen)
        try:
            slot, result = await self._answer(ask, chosen)
            assert not isinstance(result, Batch)
            if seen is not None:
                seen.set_result(result)
        finally:
            if seen is not None and not seen.done():  # the client has gone
                seen.cancel()
        return slot, result

    async def predict_features(self, ask: Ask) -> tuple[str, Batch | Problem]:
        """The same for rows of features, which no shadow is asked."""
        slot, result = await self._answer(ask, self.choose(ask))
        assert not isinstance(result, Answer)
        return slot, result

    async def _answer(self, ask: Ask, chosen: str) -> tuple[str, Answer | Batch | Problem]:
        ends = time.perf_counter() + self._deadline_seconds
        other = self._other(chosen)
        first = await self._attempt(ask, chosen, self._attempt_seconds if other else self._deadline_seconds)
        left = ends - time.perf_counter()
        elsewhere = other is not None and _may_differ(first.result)
        if left <= 0 or not (first.failed or elsewhere):
            return chosen, first.result
        again = await self._attempt(ask, other or chosen, left, number=2)
        if other is not None and isinstance(again.result, Problem) and again.result.status >= 500:
            return chosen, first.result  # the slot that was chosen tells more
        return again.slot, again.result

    def _other(self, slot: str) -> str | None:
        """Another slot that holds a model and is not known to be unwell."""
        for name, version in self.traffic.models.items():
            if name != slot and version is not None and name not in self._unwell:
                return name
        return None

    def _ask_shadow(self, ask: Ask, chosen: str) -> asyncio.Future[Answer | Problem] | None:
        """Ask the other slot too, off the request's path; the future takes what the client was answered."""
        shadow = self.traffic.shadow
        if shadow is None:
            return None
        unseen = self.traffic.other(chosen) if chosen == shadow else shadow
        if self.traffic.models[unseen] is None:
            return None
        seen: asyncio.Future[Answer | Problem] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._in_the_shadow(ask, unseen, seen))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        return seen

    async def _in_the_shadow(self, ask: Ask, slot: str, seen: asyncio.Future[Answer | Problem]) -> None:
        attempt = await self._attempt(ask, slot, self._attempt_seconds, shadow=True)
        served = await seen
        if isinstance(attempt.result, Answer) and isinstance(served, Answer):
            self._paired(attempt.result, served)

    async def _attempt(
        self, ask: Ask, slot: str, seconds: float, *, shadow: bool = False, number: int = 1
    ) -> Attempt:
        began = time.perf_counter()
        failed = True
        result: Answer | Batch | Problem
        client = self._clients[slot]
        try:
            async with asyncio.timeout(seconds):
                if ask.features is None:
                    result = await client.predict(ask.instrument, ask.bars)
                else:
                    result = await client.predict_features(*ask.features)
        except TimeoutError:
            detail = f"slot {slot} did not answer within {seconds:.3g} s"
            result = problem("slot-late", 504, "No answer in time", detail)
        except SlotError as e:
            status, title = (500, "Internal error") if e.kind == "bug" else (503, "No replica")
            result = problem(f"slot-{e.kind}", status, title, f"slot {slot} gave no answer: {e}")
        else:
            failed = isinstance(result, Problem) and result.status >= 500 and not _innocent(result)
        attempt = Attempt(ask, slot, shadow, number, result, failed, time.perf_counter() - began)
        self._done(attempt)
        return attempt


def _innocent(found: Problem) -> bool:
    """Whether the data is to blame."""
    return found.kind in _NOT_THE_MODELS_FAULT


def _may_differ(result: Answer | Batch | Problem) -> bool:
    """Whether there is no answer, and another model might have one."""
    return isinstance(result, Problem) and result.status >= 500 and result.kind != "stale-bars"
