"""What other processes do to a store, for tests that kill them or let them race."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from marketray.serving.store import open_store
from marketray.serving.store.database import Database
from marketray.serving.store.traffic_log import StaleTrafficError, TrafficLog
from marketray.serving.store.writer import PredictionWriter
from marketray.serving.traffic import Traffic
from tests.serving.store.rows import row

_SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def running(program: Callable[[str, Connection], None], uri: str) -> Iterator[Connection]:
    """`program` in a process of its own, killed (SIGKILL) at the end of the block; gives its pipe."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=program, args=(uri, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def heard(pipe: Connection) -> list[int]:
    """What a killed process has said and we have not read yet."""
    said = []
    try:
        while pipe.poll(0):
            said.append(pipe.recv())
    except EOFError:
        pass
    return said


def create_and_win(uri: str, pipe: Connection) -> None:
    """Make the tables when told to, then try to make the first change."""
    pipe.send("here")
    pipe.recv()
    database = Database(uri)
    database.create()
    try:
        TrafficLog(database).append(split(0), who="process", action="set", expect_seq=0)
    except StaleTrafficError:
        pipe.send("stale")
    else:
        pipe.send("won")
    pipe.recv()


def change_traffic(uri: str, pipe: Connection) -> None:
    """Change the traffic for ever, two changes in a transaction; say the number of each that is committed."""
    database = Database(uri)
    log = TrafficLog(database)
    while True:
        with database.writing("two changes"):
            log.append(split(1), who="process", action="set")
            entry = log.append(split(2), who="process", action="set")
        pipe.send(entry.seq)


def record_predictions(uri: str, pipe: Connection) -> None:
    """Put numbered predictions for ever; say how many the writer has written, as often as that grows."""
    store = open_store(uri)
    writer = PredictionWriter(store.predictions.record, every_seconds=0.01, batch=7)
    said = 0
    for n in itertools.count():
        writer.put(row(n))
        if n % 50 == 0:
            written = writer.counts.written
            if written > said:
                said = written
                pipe.send(said)
            time.sleep(0.001)


def split(green: int) -> Traffic:
    """Version 1 in blue, version 2 in green with this weight."""
    return Traffic({"blue": 10_000 - green, "green": green}, {"blue": 1, "green": 2})
