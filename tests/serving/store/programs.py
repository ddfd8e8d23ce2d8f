"""What other processes do to a store, for tests that kill them or let them race."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from marketray.serving.store.database import Database
from marketray.serving.store.traffic_log import StaleTrafficError, TrafficLog
from marketray.serving.traffic import Traffic

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


def split(green: int) -> Traffic:
    """Version 1 in blue, version 2 in green with this weight."""
    return Traffic({"blue": 10_000 - green, "green": green}, {"blue": 1, "green": 2})
