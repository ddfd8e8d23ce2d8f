"""A fresh store on either database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketray.serving.store import Store, open_store
from marketray.serving.store.database import Database

Opened = Callable[..., Database]


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database of this test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/serving.db"
    return postgresql_uri(request.getfixturevalue("postgres_server"))


def postgresql_uri(server: str) -> str:
    """Address of an empty schema of its own on this server."""
    name = f"store_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"postgresql://{server}", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"postgresql://{server}?options=-csearch_path%3D{name}"


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Makes a `Database` that is closed at the end of the test."""
    with ExitStack() as stack:

        def open_one(*args: Any, **kwargs: Any) -> Database:
            made = Database(*args, **kwargs)
            stack.callback(made.close)
            return made

        yield open_one


@pytest.fixture
def database(uri: str, opened: Opened) -> Database:
    """The database with its tables."""
    made = opened(uri)
    made.create()
    return made


@pytest.fixture
def store(uri: str) -> Iterator[Store]:
    """The whole store."""
    made = open_store(uri)
    yield made
    made.database.close()
