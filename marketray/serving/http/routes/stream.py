"""WS /ws/market-stream: what happens, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from marketray.errors import StoreError
from marketray.serving.http.announce import Announcer
from marketray.serving.http.stream import Feed, LaggingError

if TYPE_CHECKING:
    from marketray.serving.http.api import Service

__all__ = ["add"]

_MOST_SUBSCRIBERS = 1_000
_MOST_CHARACTERS = 1_000
_SEND_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
_UNEXPECTED, _INVALID, _REFUSED, _TOO_BIG, _LATER = 1003, 1007, 1008, 1009, 1013


class _Resume(BaseModel):
    """The one message that subscribers send."""

    model_config = ConfigDict(extra="forbid", strict=True)

    last_id: int = Field(ge=0, lt=2**63)


class _CloseError(Exception):
    """Ends the subscription with this code and reason (at most 123 bytes)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def add(app: FastAPI, service: Service, feed: Feed | None = None) -> Feed:
    """WS /ws/market-stream, over a feed of the service's events."""
    followed = feed or Feed(service.store.events, look=Announcer(service).look)

    @app.websocket("/ws/market-stream")
    async def stream(websocket: WebSocket) -> None:
        if not _may_read(websocket, service.settings.serving.cors_origins):
            await websocket.close(_REFUSED, "pages of other sites may not read this")
            return
        await websocket.accept()
        try:
            await _serve(websocket, followed)
        except _CloseError as e:
            await _close(websocket, e.code, str(e))
        except WebSocketDisconnect:
            pass

    return followed


async def _serve(websocket: WebSocket, feed: Feed) -> None:
    """Send and listen until either ends; raises _CloseError or WebSocketDisconnect."""
    given = websocket.query_params.get("last_id")
    last_id = None if given is None else _parse(f'{{"last_id": {given}}}')
    if feed.subscribers >= _MOST_SUBSCRIBERS:
        raise _CloseError(_LATER, "too many subscribers; connect again later")
    async with feed.joined():
        sender = asyncio.create_task(_send(websocket, feed, last_id))
        receiver = asyncio.create_task(_receive(websocket))
        try:
            done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            if receiver in done:
                last_id = receiver.result()
                await _stopped(sender)
                sender = asyncio.create_task(_send(websocket, feed, last_id))
                receiver = asyncio.create_task(_receive(websocket, more=False))
                done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _stopped(sender)
            await _stopped(receiver)


async def _send(websocket: WebSocket, feed: Feed, after: int | None) -> None:
    """Send what happens; raises _CloseError where the subscriber or the store is too slow."""
    try:
        async with contextlib.aclosing(feed.texts(after)) as texts:
            async for text in texts:
                async with asyncio.timeout(_SEND_SECONDS):
                    await websocket.send_text(text)
    except LaggingError as e:
        raise _CloseError(_LATER, f"too slow: connect again with last_id={e.last_id}") from e
    except TimeoutError as e:
        raise _CloseError(_LATER, "too slow: connect again with the last_id you had") from e
    except StoreError as e:
        raise _CloseError(_LATER, "the store does not answer; connect again later") from e


async def _receive(websocket: WebSocket, *, more: bool = True) -> int:
    """The id that the subscriber goes on from; _CloseError for another message, without `more` for any."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise _CloseError(_UNEXPECTED, 'binary message; required: {"last_id": n}')
    if len(text) > _MOST_CHARACTERS:
        raise _CloseError(_TOO_BIG, f"{len(text)} characters; required: at most {_MOST_CHARACTERS}")
    last_id = _parse(text)
    if not more:
        raise _CloseError(_UNEXPECTED, "second message; required: at most one")
    return last_id


def _parse(text: str) -> int:
    try:
        return _Resume.model_validate_json(text).last_id
    except ValidationError as e:
        raise _CloseError(_INVALID, 'required: {"last_id": n}, or ?last_id=n in the address') from e


def _may_read(websocket: WebSocket, others: tuple[str, ...]) -> bool:
    """Whether the page that asks is ours or a named one; whoever is no page names no origin."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in others:
        return True
    return urlsplit(origin).netloc.lower() == websocket.headers.get("host", "").lower()


async def _stopped(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    """Say good-bye, unless the other side takes nothing any more."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await websocket.close(code, reason)
