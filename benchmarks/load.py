"""A small HTTP/1.1 load generator on raw asyncio streams, so that it costs little beside what it measures.

Closed loop (`rate` None): each connection sends its next request when the last was answered. Open loop:
requests are due at a constant rate whatever the answers do, and latency counts from when they were due, so
that a stall of the service is not hidden by a client that waits for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Load", "Sample", "percentile"]


@dataclass(frozen=True)
class Sample:
    """One request: when it was due (seconds since the load began), seconds it took, status (0: no answer)."""

    due: float
    seconds: float
    status: int
    body: bytes = b""


@dataclass
class Load:
    """Requests of one kind to one service.

    Attributes
    ----------
    url, method, body, headers:
        The request; a header value may hold ``{n}``, the request's number.
    timeout_seconds:
        After which a request counts as unanswered.
    keep_bodies:
        Keep what was answered.
    samples:
        What came of the requests so far, in order of their ends.
    """

    url: str
    method: str = "POST"
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    timeout_seconds: float = 15.0
    keep_bodies: bool = False
    samples: list[Sample] = field(default_factory=list)
    _number: int = 0

    async def run(self, connections: int, seconds: float, rate: float | None = None) -> list[Sample]:
        """Send requests for so many seconds; all samples."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.until(stop, connections, rate))
        await asyncio.sleep(seconds)
        stop.set()
        return await task

    async def until(self, stop: asyncio.Event, connections: int, rate: float | None = None) -> list[Sample]:
        """Send requests until `stop` is set; all samples."""
        began = time.perf_counter()
        await asyncio.gather(*(self._connection(stop, began, rate) for _ in range(connections)))
        return self.samples

    async def _connection(self, stop: asyncio.Event, began: float, rate: float | None) -> None:
        where = urlsplit(self.url)
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not stop.is_set():
            number = self._number
            self._number += 1
            due = time.perf_counter() - began
            if rate is not None:
                due = number / rate
                await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
            status, body = 0, b""
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    if streams is None:
                        streams = await asyncio.open_connection(where.hostname, where.port)
                    streams[1].write(self._request(where.netloc, where.path, number))
                    status, body, kept = await _answer(streams[0])
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                kept = False
            if not kept and streams is not None:
                streams[1].close()
                streams = None
            took = time.perf_counter() - began - due
            self.samples.append(Sample(due, took, status, body if self.keep_bodies else b""))
        if streams is not None:
            streams[1].close()

    def _request(self, host: str, path: str, number: int) -> bytes:
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
            **{k: v.replace("{n}", str(number)) for k, v in self.headers.items()},
        }
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        return f"{self.method} {path or '/'} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    body = b""
    if fields.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    return int(first.split(" ", 2)[1]), body, fields.get("connection", "").lower() != "close"


def percentile(values: list[float], share: float) -> float:
    """The value that this share of `values` does not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
