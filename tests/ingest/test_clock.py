"""The clock is data, system or a given time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from marketray.ingest.clock import fixed_clock, resolve_clock
from marketray.settings import load_settings

END = datetime(2019, 12, 31, 21, 14, tzinfo=UTC)


def test_the_data_are_their_own_clock(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(overrides={"clock": "data"})
    assert fixed_clock(settings) is None
    with caplog.at_level("INFO"):
        assert resolve_clock(settings, END) == END
    assert "clock: data; age is measured against the data's own end" in caplog.text


def test_a_given_clock_is_put_into_utc() -> None:
    settings = load_settings(overrides={"clock": "2024-05-01T10:00:00-04:00"})
    assert resolve_clock(settings, END) == datetime(2024, 5, 1, 14, tzinfo=UTC)
    assert resolve_clock(settings, END).tzinfo is UTC


def test_the_system_clock_is_now() -> None:
    settings = load_settings(overrides={"clock": "system"})
    assert abs(resolve_clock(settings, END) - datetime.now(UTC)) < timedelta(seconds=5)
