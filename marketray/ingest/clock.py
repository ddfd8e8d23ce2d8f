"""The time against which the age of data is measured; it is passed in, never read inside a check."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["fixed_clock", "present", "resolve_clock"]

_log = logging.getLogger(__name__)


def fixed_clock(settings: Settings) -> datetime | None:
    """The clock in UTC, or None where the data's own end is the clock (``clock: data``)."""
    if settings.clock == "data":
        return None
    if settings.clock == "system":
        return datetime.now(UTC)
    return datetime.fromisoformat(settings.clock).astimezone(UTC)


def present(settings: Settings) -> datetime:
    """The time after which nothing can have happened yet, tz-aware UTC: the clock, else the machine's.

    With ``clock: data`` the age of data is measured against their own end; that end is no later than now.
    """
    return fixed_clock(settings) or datetime.now(UTC)


def resolve_clock(settings: Settings, data_end: datetime) -> datetime:
    """The time that counts as now, tz-aware UTC.

    Parameters
    ----------
    settings:
        ``clock: data`` takes the end of the last bar, so that data of the past are never stale;
        ``system`` the present; otherwise the ISO 8601 time that it names.
    data_end:
        End of the last bar, tz-aware.
    """
    clock = fixed_clock(settings)
    if clock is None:
        _log.info("clock: data; age is measured against the data's own end, %s", data_end.isoformat())
        return data_end
    return clock
