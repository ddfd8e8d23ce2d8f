"""Addresses of the store: which are taken, and how they are shown."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from marketray.errors import StoreError

__all__ = ["masked", "parsed"]

_SECRETS = ("password", "sslpassword")
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_REQUIRED = "sqlite:////absolute/path or postgresql://user@host/database"
_HINT = "correct serving.store_uri"


def masked(uri: str) -> str:
    """`uri` with its passwords replaced by ``***``; one that cannot be read is not shown."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return "***"
    hidden = dict.fromkeys((key for key in _SECRETS if key in url.query), "***")
    return url.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def parsed(uri: str) -> URL:
    """The parts of an address, with the driver that is used.

    Raises
    ------
    StoreError
        It is no address of sqlite or PostgreSQL, or names no absolute path: every process would have a
        database of its own then.
    """
    try:
        url = make_url(uri)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        msg = f"serving.store_uri={masked(uri)} is no address; required: {_REQUIRED}"
        raise StoreError(msg, hint=_HINT) from None  # its text may hold a part of the password
    if backend not in _DRIVERS:
        msg = f"serving.store_uri={masked(uri)} names the database {backend}; required: {_REQUIRED}"
        raise StoreError(msg, hint=_HINT)
    if backend == "sqlite" and not Path(url.database or "").is_absolute():
        msg = f"serving.store_uri={masked(uri)} names no absolute path; required: {_REQUIRED}"
        raise StoreError(msg, hint=_HINT)
    return url if "+" in url.drivername else url.set(drivername=_DRIVERS[backend])
