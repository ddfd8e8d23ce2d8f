"""The writer: never waits, loses nothing unseen, and its counters add up."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from marketray.errors import StoreError
from marketray.serving.store import Store, open_store
from marketray.serving.store.database import Database, StoreUnavailableError
from marketray.serving.store.predictions import PredictionRow, Predictions
from marketray.serving.store.writer import PredictionWriter, WriterCounts
from tests.serving.store.conftest import Opened
from tests.serving.store.programs import heard, record_predictions, running
from tests.serving.store.rows import row


class Recorder:
    """Stands for a store: takes rows, refuses those named `bad`, may be away or hold its caller up."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.batches: list[int] = []
        self.tries = 0
        self.away = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, rows: list[PredictionRow]) -> None:
        self.tries += 1
        assert self.open.wait(60)
        if self.away.is_set():
            msg = "away"
            raise StoreUnavailableError(msg)
        if any(r.request_id.startswith("bad") for r in rows):
            msg = "refused"
            raise StoreError(msg)
        self.batches.append(len(rows))
        self.rows += [r.request_id for r in rows]


@contextmanager
def writer_to(record: Callable[[list[PredictionRow]], None], **options: float) -> Iterator[PredictionWriter]:
    writer = PredictionWriter(record, **options)  # type: ignore[arg-type]
    try:
        yield writer
    finally:
        writer.close(0)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.005)


def names(store: Store) -> set[str]:
    return {r["request_id"] for rows in store.predictions.stream() for r in rows}


def test_rows_are_recorded_in_order_soon_and_at_the_end(store: Store) -> None:
    with writer_to(store.predictions.record, every_seconds=0.02) as writer:
        assert all(writer.put(row(n)) for n in range(10))
        wait(lambda: writer.counts.written == 10)
        assert names(store) == {str(n) for n in range(10)}
        assert writer.put(row("last"))
        assert writer.close() == WriterCounts(taken=11, shed=0, written=11, failed=0, waiting=0)
        assert not writer.put(row("too late"))
        assert writer.counts.shed == 1
    found, _ = store.predictions.history()
    assert [p.request_id for p in found if p.request_id != "last"] == [str(n) for n in range(9, -1, -1)]


def test_a_full_batch_is_written_before_its_time() -> None:
    recorder = Recorder()
    with writer_to(recorder, every_seconds=3600, batch=5) as writer:
        for n in range(5):
            writer.put(row(n))
        wait(lambda: writer.counts.written == 5)
        assert recorder.batches == [5]


def test_under_overload_every_row_is_taken_or_shed() -> None:
    recorder = Recorder()
    recorder.open.clear()
    with writer_to(recorder, capacity=100, batch=10, every_seconds=0.01) as writer:
        with ThreadPoolExecutor(4) as pool:
            took = list(pool.map(lambda n: writer.put(row(n)), range(500)))
        assert (took.count(True), took.count(False)) == (100, 400)
        assert writer.counts == WriterCounts(taken=100, shed=400, written=0, failed=0, waiting=100)
        recorder.open.set()
        assert writer.close() == WriterCounts(taken=100, shed=400, written=100, failed=0, waiting=0)
    assert recorder.rows == sorted(recorder.rows, key=recorder.rows.index)
    assert len(set(recorder.rows)) == 100
    assert max(recorder.batches) == 10


def test_while_the_store_is_away_rows_wait_then_are_shed_and_those_that_waited_are_recorded() -> None:
    recorder = Recorder()
    recorder.away.set()
    with writer_to(recorder, capacity=20, every_seconds=0.01) as writer:
        took = [writer.put(row(n)) for n in range(30)]
        assert took == [True] * 20 + [False] * 10
        wait(lambda: recorder.tries >= 3)
        assert writer.counts == WriterCounts(taken=20, shed=10, written=0, failed=0, waiting=20)
        recorder.away.clear()
        wait(lambda: writer.counts.waiting == 0)
        assert writer.put(row(30))
        assert writer.close() == WriterCounts(taken=21, shed=10, written=21, failed=0, waiting=0)
    assert recorder.rows == [str(n) for n in [*range(20), 30]]


def test_a_row_that_is_refused_holds_no_other_up(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    rows = [row(f"bad {n}" if n in (0, 4, 5, 12) else n) for n in range(13)]
    with writer_to(recorder, every_seconds=0.01) as writer:
        for r in rows:
            writer.put(r)
        assert writer.close() == WriterCounts(taken=13, shed=0, written=9, failed=4, waiting=0)
    assert recorder.rows == [r.request_id for r in rows if not r.request_id.startswith("bad")]
    assert "are left out, the last: refused" in caplog.text


def test_what_cannot_be_recorded_at_the_end_is_given_up_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    recorder.away.set()
    with writer_to(recorder, every_seconds=0.01) as writer:
        for n in range(3):
            writer.put(row(n))
        writer.close(0.05)
        wait(lambda: writer.counts.waiting == 0)
        assert writer.counts == WriterCounts(taken=3, shed=0, written=0, failed=3, waiting=0)
    assert "3 were not recorded, the store stayed away" in caplog.text


def test_a_refused_row_of_the_real_store_is_left_out(store: Store) -> None:
    with writer_to(store.predictions.record) as writer:
        for r in (row("a"), row("naive", at=datetime(2024, 5, 1)), row("b")):
            writer.put(r)
        assert writer.close().failed == 1
    assert names(store) == {"a", "b"}


def test_the_writer_goes_on_when_a_locked_sqlite_is_free_again(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "serving.db"
    store = open_store(f"sqlite:///{path}")
    impatient = Predictions(opened(f"sqlite:///{path}", wait_seconds=0.01))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    tries: list[int] = []

    def record(rows: list[PredictionRow]) -> None:
        tries.append(len(rows))
        impatient.record(rows)

    with writer_to(record, every_seconds=0.01) as writer:
        writer.put(row("a"))
        wait(lambda: len(tries) >= 2)
        assert writer.counts.waiting == 1
        other.rollback()
        other.close()
        wait(lambda: writer.counts.written == 1)
    assert names(store) == {"a"}
    store.database.close()


def test_the_writer_goes_on_when_postgresql_takes_connections_again(
    postgres_server: str, opened: Callable[..., Database]
) -> None:
    server, name = postgres_server.rpartition("/")[0], "store_away"
    with psycopg.connect(f"postgresql://{postgres_server}", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        database = opened(f"postgresql://{server}/{name}")
        database.create()
        predictions = Predictions(database)
        tries: list[int] = []

        def record(rows: list[PredictionRow]) -> None:
            tries.append(len(rows))
            predictions.record(rows)

        with writer_to(record, every_seconds=0.01) as writer:
            writer.put(row("before"))
            wait(lambda: writer.counts.written == 1)
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            tries.clear()
            writer.put(row("meanwhile"))
            wait(lambda: len(tries) >= 2)
            assert writer.counts.waiting == 1
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            wait(lambda: writer.counts.written == 2)
        assert [p.request_id for p in predictions.history()[0]] == ["meanwhile", "before"]


def test_a_killed_process_loses_nothing_that_was_written_and_leaves_no_half_row(uri: str) -> None:
    with running(record_predictions, uri) as pipe:
        said = [pipe.recv() for _ in range(4)]
    said += heard(pipe)
    store = open_store(uri)
    rows = [r for part in store.predictions.stream() for r in part]
    there = sorted(int(r["request_id"]) for r in rows)
    assert there == list(range(len(there)))  # in the order of put, so what is lost is the end
    assert len(there) >= said[-1] > 0
    expected = row("x")
    assert all(r["predicted_return"] == expected.predicted_return and r["at"] == expected.at for r in rows)
    store.database.close()
