"""What a scoring says of itself while it runs."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from marketray.sentiment.throughput import Throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_and_one_at_the_end(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Throughput(4_000, Console(file=io.StringIO())) as shown:
        for seconds in (4, 6, 5, 5):
            clock[0] += seconds
            shown.add(1_000, 25_000)
    assert [record.getMessage() for record in caplog.records] == [
        "sentiment: 2000 of 4000 texts, 200 texts/s, 5,000 tokens/s",
        "sentiment: 4000 of 4000 texts, 200 texts/s, 5,000 tokens/s",
    ]


def test_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    with Throughput(100, Console(file=out, force_terminal=True, width=100)) as shown:
        shown.add(50, 1_000)
    assert "50/100" in out.getvalue()
    assert "texts/s" in out.getvalue()
