"""The client's errors name the address and the service's reason."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from marketray.errors import ServingError
from marketray.serving.client import predict


@contextmanager
def answering(status: int, body: bytes, seen: Callable[[Any], None] = lambda _: None) -> Iterator[str]:
    """A server that gives one fixed answer and shows `seen` each request's body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_sends_only_what_is_given() -> None:
    seen: list[Any] = []
    with answering(200, b'{"direction": "up"}', seen.append) as url:
        assert predict(url) == {"direction": "up"}
        predict(url, instrument="X", bars=[{"time": "t"}])
    assert seen == [{}, {"instrument": "X", "bars": [{"time": "t"}]}]


def test_a_problem_is_told() -> None:
    body = json.dumps({"title": "No fresh bar", "detail": "got 20 minutes", "hint": "ingest"}).encode()
    with answering(503, body) as url, pytest.raises(ServingError, match="503 No fresh bar: got 20") as caught:
        predict(url)
    assert caught.value.hint == "ingest"


def test_something_else_answers() -> None:
    with (
        answering(200, b"<html>") as url,
        pytest.raises(ServingError, match="status 200 without JSON; required: a marketray service"),
    ):
        predict(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", ""])
def test_unreachable(url: str) -> None:
    with pytest.raises(ServingError, match="/predict: .+"):
        predict(url, timeout_seconds=5)
