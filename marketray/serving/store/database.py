"""One database for all processes of the service: sqlite on one machine, PostgreSQL on a cluster.

A transaction is whole or not there at all, also where its process is killed within it, and what has been
committed survives that process. In sqlite a writer takes the file's only write lock at its start (BEGIN
IMMEDIATE), so none has to give up half-way; readers never wait (write-ahead log). sqlite needs a disk of the
machine's own: its locks do not hold on network folders.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, insert, inspect, select, text
from sqlalchemy import exc as sql

from marketray.errors import StoreError
from marketray.serving.store.address import masked, parsed
from marketray.serving.store.tables import METADATA, SCHEMA, SCHEMA_VERSION

__all__ = ["Database", "StoreUnavailableError"]

_BEGIN = "marketray_begin"
_CREATING = 0x6D61726B  # PostgreSQL's advisory lock of those who create the tables
_HINTS = {
    "sqlite": "look whether the folder can be written and whether another process holds the file",
    "postgresql": "start the server, or correct serving.store_uri and the rights of its user",
}


class StoreUnavailableError(StoreError):
    """The database cannot be reached now, or is busy for too long; the same may work later."""


class Database:
    """Transactions on the store's database, for any number of threads and processes.

    Parameters
    ----------
    uri:
        ``sqlite:////absolute/path`` or ``postgresql://user:password@host/database``.
    wait_seconds:
        How long a transaction waits for another one, and a connection to be made.

    Attributes
    ----------
    uri:
        The address without passwords, for messages.

    Raises
    ------
    StoreError
        The address is of neither kind, or the driver is not installed.
    """

    def __init__(self, uri: str, wait_seconds: float = 10.0) -> None:
        url = parsed(uri)
        self.uri = masked(uri)
        self._backend = url.get_backend_name()
        self._wait_seconds = wait_seconds
        self._joined = threading.local()
        self._engine = self._sqlite(url) if self._backend == "sqlite" else self._postgresql(url)
        self._writers = self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    def create(self) -> None:
        """Make the tables where there are none; several processes may do so at once.

        Raises
        ------
        StoreError
            The database holds tables of another version.
        """
        with self.writing("creating the tables") as connection:
            if self._backend == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATING})
            if not inspect(connection).has_table(SCHEMA.name):
                METADATA.create_all(connection)
                connection.execute(insert(SCHEMA).values(version=SCHEMA_VERSION))
            found = connection.execute(select(SCHEMA.c.version)).scalar()
        if found != SCHEMA_VERSION:
            msg = (
                f"serving.store_uri={self.uri} holds tables of version {found}; required: {SCHEMA_VERSION}, "
                "the version of this release"
            )
            raise StoreError(msg, hint="name another database, or use the release that made this one")

    @contextmanager
    def writing(self, doing: str, *alone: Table) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, undone where the block raises.

        A block inside another one of the same thread is part of that one's transaction, so changes of
        several tables can be made together.

        Parameters
        ----------
        doing:
            What is done, for messages: ``"recording predictions"``.
        alone:
            Tables that no other transaction may change before this one ends.

        Raises
        ------
        StoreUnavailableError
            The database does not answer, or stays locked.
        StoreError
            It refuses the change.
        """
        outer: Connection | None = getattr(self._joined, "connection", None)
        with self._translated(doing):
            if outer is not None:
                self._lock(outer, alone)
                yield outer
                return
            with self._writers.begin() as connection:
                self._joined.connection = connection
                try:
                    self._lock(connection, alone)
                    yield connection
                finally:
                    self._joined.connection = None

    @contextmanager
    def reading(self, doing: str) -> Iterator[Connection]:
        """A transaction that reads; inside `writing` of the same thread it sees what that has written.

        Raises
        ------
        StoreUnavailableError, StoreError
            As `writing`.
        """
        outer: Connection | None = getattr(self._joined, "connection", None)
        with self._translated(doing):
            if outer is not None:
                yield outer
                return
            with self._engine.begin() as connection:
                yield connection

    def insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows, leaving out those whose unique key is there already."""
        from sqlalchemy.dialects import postgresql, sqlite

        if rows:
            make = sqlite.insert if self._backend == "sqlite" else postgresql.insert
            connection.execute(make(table).on_conflict_do_nothing(), rows)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def _lock(self, connection: Connection, tables: tuple[Table, ...]) -> None:
        if self._backend == "postgresql":  # sqlite has one writer at a time anyway
            for table in tables:
                connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))

    def _sqlite(self, url: URL) -> Engine:
        try:
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            msg = f"serving.store_uri={self.uri}: its folder cannot be made: {e}"
            raise StoreError(msg, hint="name a folder that this process can write") from e
        engine = self._engine_of(url, {"timeout": self._wait_seconds})

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None  # transactions begin below, not where the driver guesses
            connection.execute("PRAGMA foreign_keys=ON")
            _keep_log(connection, self._wait_seconds)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

        return engine

    def _postgresql(self, url: URL) -> Engine:
        wait = self._wait_seconds
        arguments = {
            "connect_timeout": max(2, round(wait)),
            "tcp_user_timeout": round(wait * 1000),  # a server that is cut off is given up
            "application_name": "marketray",
            "options": f"{url.query.get('options', '')} -c lock_timeout={round(wait * 1000)}".strip(),
        }
        return self._engine_of(url, arguments)

    def _engine_of(self, url: URL, arguments: dict[str, Any]) -> Engine:
        try:
            return create_engine(
                url,
                connect_args=arguments,
                pool_pre_ping=True,
                pool_timeout=self._wait_seconds,
                hide_parameters=True,  # what is stored does not belong into messages
            )
        except (ImportError, sql.ArgumentError) as e:
            msg = f"serving.store_uri={self.uri}: its driver cannot be used: {e}"
            raise StoreError(msg, hint="pip install 'marketray[postgres]', and correct the address") from e

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn the database's errors into `StoreError`."""
        try:
            yield
        except sql.SQLAlchemyError as e:
            cause = getattr(e, "orig", None) or e
            msg = f"serving.store_uri={self.uri}: {doing} failed: {' '.join(str(cause).split())[:300]}"
            if isinstance(e, (sql.OperationalError, sql.InterfaceError, sql.TimeoutError)):
                raise StoreUnavailableError(msg, hint=_HINTS[self._backend]) from e
            raise StoreError(msg, hint="correct what was given to the store") from e


def _keep_log(connection: sqlite3.Connection, wait_seconds: float) -> None:
    """Turn the write-ahead log on; while others do so, sqlite refuses instead of waiting."""
    end = time.monotonic() + wait_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.02)
        else:
            return
