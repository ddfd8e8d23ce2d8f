"""A slot's latest forecast, kept for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from ray.exceptions import ActorUnavailableError

from marketray.serving.problems import problem
from marketray.serving.router import SlotError
from marketray.serving.slot_client import HandleClient
from tests.serving.forecasts import AT, forecast

FIRST = forecast("blue")
SECOND = replace(FIRST, decision_at=AT + timedelta(minutes=1))


class Bench:
    """A client with a clock that is set by hand, over a handle that counts its calls."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls = 0
        self.answer: Any = FIRST
        self.meanwhile: Callable[[], None] = lambda: None
        handle: Any = SimpleNamespace(predict=SimpleNamespace(remote=self._predict))
        self.client = HandleClient(handle, 1.0, lambda: self.now)

    async def _predict(self, *_: Any) -> Any:
        self.calls += 1
        answer = self.answer
        self.meanwhile()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def look(self) -> Any:
        return asyncio.run(self.client.look())

    def ask(self, instrument: str | None = None, bars: pl.DataFrame | None = None) -> Any:
        asked: Coroutine[Any, Any, Any] = self.client.predict(instrument, bars)
        return asyncio.run(asked)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_was_found_is_answered_for_a_second_from_the_asking(bench: Bench) -> None:
    bench.meanwhile = lambda: setattr(bench, "now", 100.4)  # the replica took that long
    assert bench.look() is FIRST
    bench.answer = SECOND
    bench.now = 100.99
    assert bench.ask() is FIRST
    assert bench.ask("X") is FIRST
    assert bench.calls == 1
    bench.now = 101.0
    assert bench.ask() is SECOND
    assert bench.calls == 2


def test_nothing_else_is_answered_with_it(bench: Bench) -> None:
    bench.look()
    bench.answer = other = problem("unknown-instrument", 422, "t", "d")
    assert bench.ask("Y") is other
    bench.answer = SECOND
    assert bench.ask(None, pl.DataFrame()) is SECOND
    assert bench.calls == 3


def test_a_problem_is_not_kept(bench: Bench) -> None:
    bench.look()
    bench.answer = problem("stale-bars", 503, "t", "d")
    bench.look()
    bench.answer = SECOND
    assert bench.ask() is SECOND


def test_a_slot_that_dies_leaves_what_was_found_for_its_second(bench: Bench) -> None:
    bench.look()
    bench.answer = ActorUnavailableError("gone", b"\0" * 16)
    with pytest.raises(SlotError, match=r"no replica can answer \(ActorUnavailableError\)"):
        bench.look()
    assert bench.ask() is FIRST
    bench.now = 101.0
    with pytest.raises(SlotError, match=r"no replica can answer \(ActorUnavailableError\)"):
        bench.ask()


def test_what_was_asked_before_it_was_forgotten_is_not_kept(bench: Bench) -> None:
    bench.meanwhile = bench.client.forget  # word of a new bar, while the replica answers from the old one
    bench.look()
    bench.meanwhile = lambda: None
    bench.answer = SECOND
    assert bench.ask() is SECOND
    bench.look()
    bench.client.forget()
    bench.answer = FIRST
    assert bench.ask() is FIRST
