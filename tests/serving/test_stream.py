"""WS /ws/market-stream over a real server: order, resuming, gaps, heartbeats, slow readers, wrong frames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from marketray.errors import StoreError
from marketray.serving.http.routes import stream
from marketray.serving.http.stream import Feed, LaggingError
from marketray.serving.store.database import Database
from marketray.serving.store.events import Events

ORIGIN = "https://desk.example"


class Running:
    """The route over a store, served in a thread."""

    def __init__(self, events: Events, port: int, feed: Feed) -> None:
        self.events, self.feed = events, feed
        self.address = f"ws://127.0.0.1:{port}/ws/market-stream"

    def connect(self, query: str = "", **more: Any) -> ClientConnection:
        return connect(self.address + query, open_timeout=20, close_timeout=5, **more)

    def publish(self, first: int, last: int, size: int = 0) -> None:
        for n in range(first, last + 1):
            self.events.publish("traffic", {"n": n, "pad": "x" * size}, key=str(n))

    def joined(self, number: int) -> None:
        """Wait until so many listen."""
        wait_for(lambda: self.feed.subscribers == number and (number == 0 or self.feed._end is not None))


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@contextlib.contextmanager
def served(folder: Path, **options: Any) -> Iterator[Running]:
    database = Database(f"sqlite:///{folder}/stream.db")
    database.create()
    events = Events(database)
    app = FastAPI()
    serving = SimpleNamespace(serving=SimpleNamespace(cors_origins=(ORIGIN,)))
    service: Any = SimpleNamespace(settings=serving, store=SimpleNamespace(events=events))
    feed = stream.add(app, service, Feed(events, **{"poll_seconds": 0.02, **options}))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Running(events, listening.getsockname()[1], feed)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("stream")) as made:
        yield made


def received(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [json.loads(connection.recv(timeout=30)) for _ in range(count)]


def ids(messages: list[dict[str, Any]]) -> list[int]:
    return [message["id"] for message in messages]


def test_subscribers_get_what_happens_in_order_and_can_go_on(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        running.publish(1, 3)
        with running.connect() as one, running.connect("?last_id=1") as two:
            assert ids(received(two, 2)) == [2, 3]
            running.joined(2)
            running.publish(4, 5)
            first, second = received(one, 2)
            assert set(first) == {"id", "kind", "at", "data"}
            assert (first["id"], first["kind"], first["data"]["n"]) == (4, "traffic", 4)
            assert first["at"].endswith("+00:00")
            assert second["id"] == 5
            assert ids(received(two, 2)) == [4, 5]
        with running.connect() as three:
            three.send('{"last_id": 3}')
            assert ids(received(three, 2)) == [4, 5]
            running.publish(6, 6)
            assert ids(received(three, 1)) == [6]
        running.joined(0)
        assert running.feed._reader is None
        running.publish(7, 7)  # nobody reads now
        with running.connect("?last_id=6") as four:
            assert ids(received(four, 1)) == [7]
        with running.connect("?last_id=0") as five:
            assert ids(received(five, 7)) == [1, 2, 3, 4, 5, 6, 7]


def test_events_that_are_gone_are_told_as_a_gap(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        running.publish(1, 9)
        running.events.prune(3)
        with running.connect("?last_id=2") as connection:
            gap, *kept = received(connection, 4)
            assert "id" not in gap
            assert (gap["kind"], gap["data"]) == ("gap", {"last_id": 2, "next_id": 7})
            assert ids(kept) == [7, 8, 9]
        with running.connect("?last_id=500") as connection:  # of a store that is no more
            (gap,) = received(connection, 1)
            assert (gap["kind"], gap["data"]) == ("gap", {"last_id": 500, "next_id": 10})
            running.publish(10, 10)
            assert ids(received(connection, 1)) == [10]


def test_more_than_is_kept_comes_from_the_store(tmp_path: Path) -> None:
    with served(tmp_path, kept=5) as running:
        running.publish(1, 40)
        with running.connect("?last_id=0") as connection:
            assert ids(received(connection, 40)) == list(range(1, 41))
            running.publish(41, 42)
            assert ids(received(connection, 2)) == [41, 42]


def test_heartbeats_have_no_id(tmp_path: Path) -> None:
    with served(tmp_path, heartbeat_seconds=0.05) as running, running.connect() as connection:
        for message in received(connection, 3):
            assert (message["kind"], message["data"], "id" in message) == ("heartbeat", {}, False)


def test_who_falls_behind_is_given_up(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/stream.db")
    database.create()
    events = Events(database)

    async def lag() -> None:
        feed = Feed(events, poll_seconds=0.001, kept=3)
        async with feed.joined():
            texts = feed.texts(None)
            pending = asyncio.ensure_future(anext(texts))
            await asyncio.sleep(0.1)
            for n in range(1, 10):
                await asyncio.to_thread(events.publish, "traffic", {}, key=str(n))
            had = json.loads(await pending)["id"]
            while feed._end != 9:
                await asyncio.sleep(0.01)
            taken = [had]
            with pytest.raises(LaggingError, match=r"behind since event \d") as caught:
                await rest(texts, taken)
            assert caught.value.last_id == taken[-1] < 6

    asyncio.run(lag())


async def rest(texts: AsyncIterator[str], taken: list[int]) -> None:
    async for text in texts:
        taken += [json.loads(text)["id"]]


def test_a_reader_that_takes_nothing_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SEND_SECONDS", 0.3)
    with served(tmp_path) as running:
        running.publish(1, 60, size=200_000)
        with running.connect("?last_id=0", max_queue=1, compression=None) as slow:
            running.joined(1)
            with running.connect() as other:
                running.joined(2)
                wait_for(lambda: running.feed.subscribers == 1)  # the slow one is gone
                running.publish(61, 61)
                assert ids(received(other, 1)) == [61]
            with pytest.raises(ConnectionClosed):
                received(slow, 60)


WRONG = [
    (b"\x00\xff", 1003),
    (b"", 1003),
    ("", 1007),
    ("{", 1007),
    ("[" * 900, 1007),
    ('{"last_id": -1}', 1007),
    ('{"last_id": "1"}', 1007),
    ('{"last_id": 1e400}', 1007),
    ('{"last_id": 9223372036854775808}', 1007),
    ('{"last_id": 1, "more": 2}', 1007),
    ("\ud7ff" * 1_001, 1009),
    ("x" * 100_000, 1009),
]


@pytest.mark.parametrize(("frame", "code"), WRONG)
def test_wrong_frames_close(running: Running, frame: str | bytes, code: int) -> None:
    with running.connect() as connection:
        connection.send(frame)
        assert closed(connection) == code


@pytest.mark.parametrize("query", ["?last_id=", "?last_id=x", "?last_id=-1", "?last_id=1}", "?last_id=%22"])
def test_a_wrong_id_in_the_address_closes(running: Running, query: str) -> None:
    with running.connect(query) as connection:
        assert closed(connection) == 1007


def test_one_message_is_enough(running: Running) -> None:
    with running.connect() as connection:
        connection.send('{"last_id": 0}')
        connection.send('{"last_id": 0}')
        assert closed(connection) == 1003


def closed(connection: ClientConnection) -> int:
    """The code with which the other side ends the connection, whatever it tells before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=30)
    assert connection.close_code is not None
    return connection.close_code


@pytest.mark.parametrize(
    ("origin", "may"),
    [(None, True), (ORIGIN, True), ("https://evil.example", False), ("null", False), ("", False)],
)
def test_pages_of_other_sites_may_not_read(running: Running, origin: str | None, may: bool) -> None:
    if may:
        with running.connect(origin=origin):
            return
    headers = {"Origin": str(origin)}
    with pytest.raises(InvalidStatus) as caught, running.connect(additional_headers=headers):
        pass
    assert caught.value.response.status_code == 403


def test_our_own_page_may_read(running: Running) -> None:
    page = running.address.replace("ws", "http", 1).removesuffix("/ws/market-stream")
    with running.connect(origin=page) as connection:
        running.publish(1, 1)
        assert json.loads(connection.recv(timeout=20))["data"]["n"] == 1


def test_there_is_an_end_to_subscribers(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MOST_SUBSCRIBERS", 0)
    with running.connect() as connection:
        assert closed(connection) == 1013


def test_subscribers_outlast_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path) as running, running.connect() as connection:
        running.joined(1)
        after = Events.after

        def away(*_: Any, **__: Any) -> None:
            msg = "away"
            raise StoreError(msg)

        monkeypatch.setattr(Events, "after", away)
        with running.connect("?last_id=0") as other:
            running.publish(1, 1)
            time.sleep(0.1)
            monkeypatch.setattr(Events, "after", after)
            assert ids(received(connection, 1)) == [1]
            assert ids(received(other, 1)) == [1]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    frames=st.lists(
        st.one_of(
            st.binary(max_size=2_000),
            st.text(max_size=2_000),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
                ),
                max_leaves=5,
            ).map(json.dumps),
            st.integers().map(lambda n: json.dumps({"last_id": n})),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_frames_end_cleanly(
    running: Running, caplog: pytest.LogCaptureFixture, frames: list[str | bytes]
) -> None:
    with caplog.at_level(logging.WARNING), running.connect() as connection:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                connection.send(frame)
            connection.send(b"the last")
        assert closed(connection) in (1003, 1007, 1009)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR], caplog.text
