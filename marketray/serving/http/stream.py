"""The stream of events: one reader of the store for all subscribers of a process.

The reader runs while somebody listens. It keeps the newest events, and every subscriber takes from there what
it has not had; one that falls behind all of them is given up, so no subscriber holds any memory of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from marketray.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from marketray.serving.store.events import Event, Events

__all__ = ["Feed", "LaggingError"]

logger = logging.getLogger(__name__)

_PAGE = 500


class LaggingError(Exception):
    """The subscriber takes events more slowly than they come.

    Attributes
    ----------
    last_id:
        Of the last event that it had.
    """

    def __init__(self, last_id: int) -> None:
        super().__init__(f"behind since event {last_id}")
        self.last_id = last_id


class Feed:
    """Events of the store, for the subscribers of this process.

    Parameters
    ----------
    poll_seconds:
        How long an event waits at most, beside the reading.
    kept:
        By how many events a subscriber may be behind.
    heartbeat_seconds:
        Between two heartbeats.
    look:
        Done every `look_seconds` while somebody listens: it may publish what nobody else does.
    """

    def __init__(
        self,
        events: Events,
        *,
        poll_seconds: float = 0.25,
        kept: int = 1_000,
        heartbeat_seconds: float = 15.0,
        look: Callable[[], Awaitable[None]] | None = None,
        look_seconds: float = 1.0,
    ) -> None:
        self._events = events
        self._look, self._look_seconds = look, look_seconds
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._newest: deque[tuple[int, str]] = deque(maxlen=kept)
        self._end: int | None = None
        self._reader: asyncio.Task[None] | None = None
        self.subscribers = 0

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Within the block `texts` has something to tell."""
        self.subscribers += 1
        if self._reader is None:
            self._newest.clear()
            self._end = None
            self._changed = asyncio.Condition()
            self._reader = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self.subscribers -= 1
            if not self.subscribers:
                reader, self._reader = self._reader, None
                reader.cancel()

    async def texts(self, after: int | None) -> AsyncGenerator[str]:
        """Events as JSON, ``{id, kind, at, data}``, the oldest first, and heartbeats, which have no id.

        Parameters
        ----------
        after:
            Go on behind the event with this id. A ``gap`` without id comes first where those that follow on
            it are gone. None: begin with what happens from now on.

        Raises
        ------
        LaggingError
            The caller takes them too slowly.
        StoreError
            Events from before cannot be read.
        """
        now = asyncio.get_running_loop().time
        beat = now() + self._heartbeat_seconds
        live = after is None
        async with self._changed:
            await self._changed.wait_for(lambda: self._end is not None)
        assert self._end is not None
        had = self._end if after is None else after
        if had > self._end:  # of a store that is no more
            yield _gap(had, self._end + 1)
            had = self._end
        while True:
            if not self._holds(had):
                if live:
                    raise LaggingError(had)
                page = await asyncio.to_thread(self._events.after, had, _PAGE)
                for number, text in _told(had, page):
                    yield text
                    had = number
                had = had if page else self._end
                continue
            live = True
            for number, text in self._since(had):
                yield text
                had = number
            if now() >= beat:
                beat += self._heartbeat_seconds
                yield _text("heartbeat", {})
            await self._wait(had, beat)

    async def _wait(self, had: int, until: float) -> None:
        """Until there is an event behind `had`, at most until then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until), self._changed:
                await self._changed.wait_for(lambda: self._end is not None and self._end > had)

    def _holds(self, had: int) -> bool:
        """Whether all that follows on the event `had` is kept."""
        assert self._end is not None
        return had >= self._end or bool(self._newest and self._newest[0][0] <= had + 1)

    def _since(self, had: int) -> list[tuple[int, str]]:
        return list(takewhile(lambda kept: kept[0] > had, reversed(self._newest)))[::-1]

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            if self._look is not None:
                group.create_task(self._look_again(self._look))

    async def _look_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
            except StoreError as e:  # the reader tells of it
                logger.debug("nothing could be published: %s", e)
            await asyncio.sleep(self._look_seconds)

    async def _read(self) -> None:
        """Follow the store."""
        failed = ""
        while True:
            try:
                if self._end is None:
                    last = await asyncio.to_thread(self._events.last)
                    found: list[tuple[int, str]] = []
                    end = 0 if last is None else last.id
                else:
                    found = _told(self._end, await asyncio.to_thread(self._events.after, self._end, _PAGE))
                    end = found[-1][0] if found else self._end
                failed = ""
            except StoreError as e:  # subscribers wait
                if e.message != failed:
                    logger.warning("events cannot be read: %s", e)
                failed = e.message
            else:
                if end != self._end:
                    self._newest.extend(found)
                    self._end = end
                    async with self._changed:
                        self._changed.notify_all()
            await asyncio.sleep(self._poll_seconds)


def _told(after: int, events: list[Event]) -> list[tuple[int, str]]:
    """Each event's number and text; where some are gone, a gap before those that follow."""
    found = []
    for event in events:
        if event.id != after + 1:
            found.append((event.id - 1, _gap(after, event.id)))
        found.append((event.id, _text(event.kind, event.payload, event.at, event.id)))
        after = event.id
    return found


def _gap(after: int, following: int) -> str:
    return _text("gap", {"last_id": after, "next_id": following})


def _text(kind: str, data: dict[str, Any], at: datetime | None = None, number: int | None = None) -> str:
    event = {"kind": kind, "at": (at or datetime.now(UTC)).isoformat(), "data": data}
    return json.dumps(event if number is None else {"id": number, **event})
