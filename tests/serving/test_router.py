"""Which slot answers, and what the client gets where a slot does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from marketray.serving.answers import Answer
from marketray.serving.problems import problem
from marketray.serving.router import Ask, Attempt, Router, SlotError
from marketray.serving.schemas import Problem
from marketray.serving.traffic import Traffic, bucket
from tests.serving.forecasts import AT, forecast


class FakeSlot:
    """Answers what it is told to, one entry a question; the last entry for all further ones."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.asked = 0

    async def predict(self, instrument: str | None, bars: Any) -> Answer | Problem:
        result = self.results[min(self.asked, len(self.results) - 1)]
        self.asked += 1
        if isinstance(result, float):
            await asyncio.sleep(result)
            return forecast("late")
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]


class Bench:
    """A router over two fakes, with what it reported."""

    def __init__(self, blue: FakeSlot, green: FakeSlot, deadline: float = 1.0, **traffic: Any) -> None:
        self.slots = {"blue": blue, "green": green}
        self.attempts: list[Attempt] = []
        self.pairs: list[tuple[Answer, Answer]] = []
        given = {"weights": {"blue": 10_000, "green": 0}, "models": {"blue": 1, "green": 2}, **traffic}
        self.router = Router(
            self.slots,
            Traffic(**given),
            self.attempts.append,
            lambda shadow, served: self.pairs.append((shadow, served)),
            attempt_seconds=0.1,
            deadline_seconds=deadline,
        )

    def ask(self, **more: Any) -> tuple[str, Answer | Problem]:
        async def once() -> tuple[str, Answer | Problem]:
            found = await self.router.predict(Ask("r", AT, **more))
            await asyncio.sleep(0.02)  # the shadow's answer
            return found

        return asyncio.run(once())

    @property
    def seen(self) -> list[tuple[str, bool, bool]]:
        return [(a.slot, a.shadow, a.failed) for a in self.attempts]


NO_FORECAST = problem("no-forecast", 503, "t", "d")


@pytest.mark.parametrize(
    "failure",
    [SlotError.unavailable("died"), SlotError.full(), SlotError.bug("KeyError"), NO_FORECAST, 0.5],
    ids=["died", "full", "bug", "no forecast", "late"],
)
def test_a_slot_that_fails_is_replaced_within_the_request(failure: Any) -> None:
    bench = Bench(FakeSlot(failure), FakeSlot(forecast("green")))
    assert bench.ask() == ("green", forecast("green"))
    assert bench.seen == [("blue", False, True), ("green", False, False)]


def test_without_another_model_the_same_slot_is_asked_again() -> None:
    bench = Bench(
        FakeSlot(SlotError.unavailable("died"), forecast("blue")),
        FakeSlot(),
        models={"blue": 1, "green": None},
    )
    assert bench.ask() == ("blue", forecast("blue"))


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (SlotError.unavailable("died"), 503, "slot-unavailable"),
        (SlotError.full(), 503, "slot-full"),
        (SlotError.bug("KeyError"), 500, "slot-bug"),
        (9.0, 504, "slot-late"),
        (NO_FORECAST, 503, "no-forecast"),
    ],
)
def test_where_nobody_answers_the_chosen_slot_tells_why(failure: Any, status: int, kind: str) -> None:
    bench = Bench(FakeSlot(failure), FakeSlot(SlotError.unavailable("x")), deadline=3.0)
    slot, found = bench.ask()
    assert slot == "blue"
    assert isinstance(found, Problem)
    assert (found.status, found.type) == (status, f"urn:marketray:problem:{kind}")
    assert [a.failed for a in bench.attempts] == [True, True]


def test_the_callers_mistake_is_not_asked_twice() -> None:
    wrong = problem("unusable-bars", 422, "t", "d")
    bench = Bench(FakeSlot(wrong), FakeSlot(forecast("green")))
    assert bench.ask() == ("blue", wrong)
    assert bench.seen == [("blue", False, False)]


def test_the_callers_mistake_is_told_by_whoever_answers() -> None:
    wrong = problem("unusable-bars", 422, "t", "d")
    bench = Bench(FakeSlot(SlotError.unavailable("died")), FakeSlot(wrong))
    assert bench.ask() == ("green", wrong)


def test_old_bars_are_no_failure_of_the_model() -> None:
    stale = problem("stale-bars", 503, "t", "d")
    bench = Bench(FakeSlot(stale), FakeSlot(forecast("green")))
    assert bench.ask() == ("blue", stale)
    assert bench.seen == [("blue", False, False)]


@pytest.mark.parametrize("kind", ["no-state", "no-news", "other-scorer"])
def test_what_another_model_may_not_need_is_asked_there_and_blames_none(kind: str) -> None:
    missing = problem(kind, 503, "t", "d")
    bench = Bench(FakeSlot(missing), FakeSlot(forecast("green")))
    assert bench.ask() == ("green", forecast("green"))
    assert bench.seen == [("blue", False, False), ("green", False, False)]
    bench = Bench(FakeSlot(missing), FakeSlot(problem("no-model", 503, "t", "d")))
    assert bench.ask() == ("blue", missing)
    alone = Bench(FakeSlot(missing), FakeSlot(), models={"blue": 1, "green": None})
    assert alone.ask() == ("blue", missing)
    assert alone.slots["blue"].asked == 1


def test_the_deadline_ends_both_attempts() -> None:
    bench = Bench(FakeSlot(5.0), FakeSlot(5.0), deadline=0.25)
    began = asyncio.run(_elapsed(bench))
    assert 0.2 < began < 1.0


async def _elapsed(bench: Bench) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await bench.router.predict(Ask("r", AT))
    return loop.time() - began


def test_a_slot_judged_unwell_is_passed_over_while_the_other_can_answer() -> None:
    bench = Bench(FakeSlot(forecast("blue")), FakeSlot(forecast("green")))
    bench.router.judge("blue", "no answer")
    assert bench.ask()[0] == "green"
    assert bench.router.unwell == {"blue": "no answer"}
    bench.router.judge("green", "no answer")
    assert bench.ask()[0] == "blue"  # nobody is well: as the weights say
    bench.router.judge("blue", None)
    assert bench.ask()[0] == "blue"


KEYS = [f"key-{k}" for k in range(200)]


@pytest.mark.parametrize(
    ("sticky", "key_of"),
    [
        ("client", lambda k: {"client": k, "instrument": "X"}),
        ("instrument", lambda k: {"client": "c", "instrument": k}),
    ],
)
def test_the_key_is_the_clients_or_the_instruments(sticky: str, key_of: Callable[[str], Any]) -> None:
    bench = Bench(FakeSlot(), FakeSlot(), weights={"blue": 6_000, "green": 4_000}, sticky=sticky)
    chosen = [bench.router.choose(Ask(f"r{i}", AT, **key_of(k))) for i, k in enumerate(KEYS)]
    assert chosen == ["green" if bucket(k) < 4_000 else "blue" for k in KEYS]


def test_without_a_key_the_request_itself_is_the_key() -> None:
    bench = Bench(FakeSlot(), FakeSlot(), weights={"blue": 5_000, "green": 5_000})
    chosen = [bench.router.choose(Ask(k, AT)) for k in KEYS]
    assert chosen == ["green" if bucket(k) < 5_000 else "blue" for k in KEYS]


def test_new_weights_count_from_the_next_request_on() -> None:
    bench = Bench(FakeSlot(forecast("blue")), FakeSlot(forecast("green")))
    assert bench.ask()[0] == "blue"
    bench.router.traffic = bench.router.traffic.changed(weights={"blue": 0, "green": 10_000})
    assert bench.ask()[0] == "green"


def test_the_shadow_is_asked_and_paired_and_never_seen() -> None:
    bench = Bench(FakeSlot(forecast("blue")), FakeSlot(forecast("green", -0.002)), shadow="green")
    assert bench.ask() == ("blue", forecast("blue"))
    assert sorted(bench.seen) == [("blue", False, False), ("green", True, False)]
    assert bench.pairs == [(forecast("green", -0.002), forecast("blue"))]


def test_where_the_shadow_itself_is_chosen_the_other_is_asked_unseen() -> None:
    bench = Bench(
        FakeSlot(forecast("blue")), FakeSlot(forecast("green")),
        weights={"blue": 1, "green": 9_999}, shadow="green",
    )  # fmt: skip
    assert bench.ask(client="any")[0] == "green"
    assert bench.pairs == [(forecast("blue"), forecast("green"))]


@pytest.mark.parametrize("failure", [SlotError.unavailable("died"), NO_FORECAST, 5.0])
def test_a_failing_shadow_costs_the_client_nothing(failure: Any) -> None:
    bench = Bench(FakeSlot(forecast("blue")), FakeSlot(failure), shadow="green")
    assert bench.ask() == ("blue", forecast("blue"))
    assert bench.pairs == []


def test_a_client_that_goes_leaves_no_shadow_behind() -> None:
    bench = Bench(FakeSlot(5.0), FakeSlot(forecast("green")), shadow="green", deadline=10.0)

    async def go() -> None:
        request = asyncio.create_task(bench.router.predict(Ask("r", AT)))
        await asyncio.sleep(0.02)
        assert len(bench.router._shadows) == 1
        request.cancel()
        await asyncio.wait([request])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.router._shadows == set()

    asyncio.run(go())
    assert bench.pairs == []
