"""The database: made once, of one version, whole transactions, errors in words without secrets."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Table, insert, select, update

from marketray.errors import StoreError
from marketray.serving.store.address import masked
from marketray.serving.store.database import Database, StoreUnavailableError
from marketray.serving.store.tables import EVENTS, SCHEMA, TRAFFIC, from_micros, to_micros
from marketray.serving.store.traffic_log import TrafficLog
from tests.serving.store.conftest import Opened, postgresql_uri
from tests.serving.store.programs import change_traffic, create_and_win, heard, running, split


def add(database: Database, table: Table, row: dict[str, Any]) -> None:
    with database.writing("adding") as connection:
        connection.execute(insert(table), row)


def test_processes_that_start_at_once_make_one_set_of_tables_and_one_wins(uri: str, opened: Opened) -> None:
    with ExitStack() as stack:
        pipes = [stack.enter_context(running(create_and_win, uri)) for _ in range(3)]
        for pipe in pipes:
            assert pipe.recv() == "here"
        for pipe in pipes:
            pipe.send("go")
        assert sorted(pipe.recv() for pipe in pipes) == ["stale", "stale", "won"]
    database = opened(uri)
    database.create()
    assert [e.seq for e in TrafficLog(database).history()] == [1]
    with database.reading("counting") as connection:
        assert connection.execute(select(SCHEMA.c.version)).scalars().all() == [1]


def test_a_killed_process_leaves_what_it_committed_and_no_half_transaction(
    uri: str, database: Database
) -> None:
    with running(change_traffic, uri) as pipe:
        said = [pipe.recv() for _ in range(5)]
    said += heard(pipe)
    log = TrafficLog(database)
    seqs = [e.seq for e in log.history(limit=10_000)][::-1]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) % 2 == 0
    assert len(seqs) >= said[-1] >= 10
    assert log.append(split(3), who="next", action="set").seq == len(seqs) + 1


def test_tables_of_another_version_are_refused(database: Database, uri: str, opened: Opened) -> None:
    with database.writing("ageing") as connection:
        connection.execute(update(SCHEMA).values(version=0))
    with pytest.raises(StoreError, match=r"serving\.store_uri=.* holds tables of version 0; required: 1"):
        opened(uri).create()


def test_times_come_back_as_utc_to_the_microsecond(database: Database) -> None:
    at = datetime(2024, 3, 10, 1, 59, 59, 999_999, tzinfo=ZoneInfo("America/New_York"))
    with database.writing("a time") as connection:
        row = {"id": 1, "at": at, "kind": "k", "key": "a", "payload": {}}
        connection.execute(insert(EVENTS), row)
        got = connection.execute(select(EVENTS.c.at).where(EVENTS.c.at == at)).scalar_one()
    assert (got, got.tzinfo) == (datetime(2024, 3, 10, 6, 59, 59, 999_999, tzinfo=UTC), UTC)


@given(st.integers(-(2**52), 2**52), st.integers(-14 * 60, 14 * 60))
def test_microseconds_are_exact_in_every_zone(micros: int, minutes: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    assert from_micros(micros) == at
    assert to_micros(at.astimezone(timezone(timedelta(minutes=minutes)))) == micros


def test_a_time_without_zone_and_a_number_that_is_none_are_refused(database: Database) -> None:
    row = {"id": 1, "at": datetime(2024, 1, 1), "kind": "k", "key": "a", "payload": {}}
    with pytest.raises(StoreError, match="adding failed: .*2024-01-01T00:00:00 without zone; required"):
        add(database, EVENTS, row)
    row |= {"at": datetime(2024, 1, 1, tzinfo=UTC), "payload": {"x": float("nan")}}
    with pytest.raises(StoreError, match="adding failed: .*Out of range float"):
        add(database, EVENTS, row)


def test_a_change_that_breaks_a_rule_of_the_tables_is_refused(database: Database) -> None:
    with pytest.raises(StoreError, match="adding failed: .*(NOT NULL|null value)") as caught:
        add(database, TRAFFIC, {"seq": 1})
    assert not isinstance(caught.value, StoreUnavailableError)


def test_sqlite_says_so_when_another_process_keeps_the_file(tmp_path: Path, opened: Opened) -> None:
    uri = f"sqlite:///{tmp_path}/serving.db"
    holder, waiter = opened(uri), opened(uri, wait_seconds=0.05)
    holder.create()
    with (
        holder.writing("holding"),
        pytest.raises(StoreUnavailableError, match="traffic failed: database is locked"),
    ):
        TrafficLog(waiter).append(split(0), who="ann", action="set")
    assert TrafficLog(waiter).append(split(0), who="ann", action="set").seq == 1


def test_postgresql_says_so_when_a_table_stays_locked(postgres_server: str, opened: Opened) -> None:
    uri = postgresql_uri(postgres_server)
    holder, waiter = opened(uri), opened(uri, wait_seconds=0.05)
    holder.create()
    with holder.writing("holding", TRAFFIC), pytest.raises(StoreUnavailableError, match="lock timeout"):
        TrafficLog(waiter).append(split(0), who="ann", action="set")
    assert TrafficLog(waiter).append(split(0), who="ann", action="set").seq == 1


def test_a_server_that_is_not_there_is_named_without_its_password(opened: Opened) -> None:
    database = opened("postgresql://ann:s3cr%40t@127.0.0.1:1/store?sslpassword=s3crxt", wait_seconds=1)
    with pytest.raises(StoreUnavailableError, match=r"store_uri=postgresql.*://ann:\*\*\*@127") as caught:
        database.create()
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:s3cret/x@h/d", "postgresql://ann:***@h/d"),
        ("postgresql://h/d?user=ann&password=s3cret", "postgresql://h/d?password=***&user=ann"),
        ("sqlite:////data/serving.db", "sqlite:////data/serving.db"),
        ("postgresql://ann:s3cret@h:port/d", "***"),
        ("ann:s3cret@h", "***"),
    ],
)
def test_passwords_are_masked(uri: str, shown: str) -> None:
    assert masked(uri) == shown


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://ann:s3cret@h:port/d", r"store_uri=\*\*\* is no address; required: sqlite:////abs"),
        ("/data/serving.db", r"store_uri=\*\*\* is no address; required"),
        ("mysql://ann:s3cret@h/d", r"store_uri=mysql://ann:\*\*\*@h/d names the database mysql; required"),
        ("sqlite:///serving.db", "store_uri=sqlite:///serving.db names no absolute path; required"),
        ("sqlite://", "names no absolute path"),
        ("sqlite:///:memory:", "names no absolute path"),
        ("sqlite+nodriver:////data/s.db", "its driver cannot be used"),
        ("sqlite:////dev/null/serving.db", "its folder cannot be made: .*/dev/null"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Database(uri)
    assert "s3cret" not in str(caught.value)
