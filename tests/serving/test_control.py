"""Control in the real Serve application: a model takes over, is taken back, and is taken out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from benchmarks.load import Load
from marketray.errors import ServingError, TrafficError
from marketray.serving import run as serving
from marketray.serving.app import APP_NAME
from marketray.serving.http.auth import TOKEN_VARIABLE
from marketray.serving.store import open_store
from marketray.serving.store.rollouts import RolloutActiveError
from marketray.settings import Settings
from tests.serving.crossed import removal
from tests.serving.harm import HARMS, brittle, harmed, jump
from tests.serving.market import Market, registered_home, without_number

GOOD, NAN, BRITTLE = 2, 3, 4
TOKEN = "control"

PATIENT = {
    "steps": (50, 100),
    "hold_seconds": 0,
    "shadow_seconds": 0,
    "shadow_min_pairs": 5,
    "min_requests": 5,
    "max_error_rate": 0.5,
    "error_excess": 0.5,
    "max_p99_ms": 10_000.0,
    "max_p99_ratio": 1e6,
}
"""Rules under which a busy machine breaks nothing off."""

AT_HALF = {
    **PATIENT,
    "hold_seconds": 1e6,
    "min_requests": 10,
    "max_error_rate": 0.02,
    "max_disagreement": 1.0,
}
"""Rules that keep a model at half of the traffic until it fails."""


@pytest.fixture(scope="module")
def registered(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose registry holds one model twice, one that answers NaN, and one that a jump breaks."""
    home, good = tmp_path_factory.mktemp("home"), market.folders["xgboost"]
    bad = without_number(good, home / "nan"), brittle(market.folders["ar"], home / "brittle")
    return registered_home(home, market, good, good, *bad)


@pytest.fixture(scope="module")
def url(registered: Settings, ray_local: None) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        yield serving.start(registered)
    serving.stop()


def ask(url: str) -> int:
    """The version that answered."""
    answer = httpx.post(f"{url}/predict", json={}, timeout=30)
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["model_version"]
    return version


class Controlled:
    """The running control, as the ingress calls it, and what the store knows."""

    def __init__(self, settings: Settings) -> None:
        from ray import serve

        self.handle = serve.get_deployment_handle("control", APP_NAME)
        self.store = open_store(settings.store_uri)

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self.handle, method).remote(*arguments, **named).result(timeout_s=90)

    def last(self) -> Any:
        return self.store.rollouts.history(limit=1)[0].rollout

    def ask_until(self, url: str, over: Callable[[Any], bool]) -> None:
        deadline = time.monotonic() + 60
        while not over(self.last()):
            ask(url)
            assert time.monotonic() < deadline, self.last()


def test_a_model_takes_over_and_is_taken_back(url: str, registered: Settings) -> None:
    control = Controlled(registered)
    with pytest.raises(ServingError, match="slot green cannot serve version 3: the model answered nan"):
        control.call("begin", "test", "green", 3, {})
    assert control.store.rollouts.history() == []
    with pytest.raises(TrafficError, match="rollback: nothing else than the present traffic"):
        control.call("rollback", "test")
    begun = control.call("begin", "ann", "green", "2", PATIENT)
    assert (begun["phase"], begun["version"], begun["steps"]) == ("shadow", 2, [50.0, 100.0])
    with pytest.raises(RolloutActiveError, match=r"rollout 1 \(by ann\) moves the traffic"):
        control.call("change", "bob", weights={"blue": 0, "green": 10_000})
    control.ask_until(url, lambda rollout: not rollout.running)
    assert control.last().phase == "done", control.last()
    assert [d.kind for d in control.store.rollouts.decisions(1)] == ["finish", "advance", "advance"]
    assert ask(url) == 2
    assert control.call("rollback", "ann").reason == "back to change 1"
    assert ask(url) == 1
    with pytest.raises(TrafficError, match="no rollout is running; required: one"):
        control.call("cancel", "ann", "")


@contextlib.contextmanager
def burden(url: str) -> Iterator[None]:
    """Twenty requests a second within the block; each is answered."""
    load, stop = Load(f"{url}/predict", headers={"X-Client-Key": "key-{n}"}), asyncio.Event()
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as runner:
        loop = runner.get_loop()
        done = thread.submit(loop.run_until_complete, load.until(stop, 64, 20.0))
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            done.result(60)
    slowest = max(sample.seconds for sample in load.samples)
    print(f"{len(load.samples)} requests, the slowest took {slowest:.2f} s")
    assert Counter(sample.status for sample in load.samples if sample.status != 200) == {}


def send(url: str, method: str, path: str, **body: Any) -> httpx.Response:
    """A request with the service's token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.request(method, f"{url}{path}", json=body or None, headers=headers, timeout=90)


def until(url: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look at GET /traffic until this is true of it."""
    deadline = time.monotonic() + 60
    while not condition(found := send(url, "GET", "/traffic").json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def begin(url: str, version: int, rules: dict[str, Any]) -> None:
    """Begin a rollout in green over HTTP, when both slots are well."""
    until(url, lambda traffic: not traffic["unwell"])
    begun = send(url, "POST", "/traffic/rollout", slot="green", model=version, **rules)
    assert begun.status_code == 200, begun.text


def test_under_load_a_good_model_reaches_everybody_and_one_without_a_number_nobody(url: str) -> None:
    with burden(url):
        refused = send(url, "POST", "/traffic/rollout", slot="green", model=NAN)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:marketray:problem:unusable-model")
        steps = {"steps": (1, 5, 25, 50, 100), "hold_seconds": 0.3, "min_requests": 1}
        begin(url, GOOD, {**PATIENT, **steps})
        ended = until(url, lambda traffic: traffic["rollout"]["ended_at"] is not None)
        assert ended["rollout"]["phase"] == "done", ended["rollout"]
        assert [d["kind"] for d in ended["rollout"]["decisions"]] == ["finish", *["advance"] * 5]
        assert ended["weights"] == {"blue": 0.0, "green": 100.0}
        moved = [entry["weights"]["green"] for entry in ended["history"] if entry["action"] == "advance"]
        assert moved[:5] == [100.0, 50.0, 25.0, 5.0, 1.0]
        assert ask(url) == GOOD
        assert send(url, "POST", "/traffic/rollback").json()["weights"] == {"blue": 100.0, "green": 0.0}


@pytest.mark.parametrize("most_seconds", [10.0, pytest.param(2.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("harm", ["jump", *HARMS])
def test_under_load_a_bad_model_is_taken_out(
    url: str, registered: Settings, market: Market, harm: str, most_seconds: float
) -> None:
    with burden(url):
        begin(
            url,
            BRITTLE if harm == "jump" else GOOD,
            {**AT_HALF, "max_p99_ms": 500.0 if harm == "slow" else 1e4},
        )
        until(url, lambda traffic: traffic["rollout"]["step"] == 0)
        began = datetime.now(UTC)
        with jump(url, TOKEN, market) if harm == "jump" else harmed("green", HARMS[harm]):
            until(url, lambda traffic: traffic["rollout"]["ended_at"] is not None)
        found = removal(open_store(registered.store_uri))
    crossed_at = found.crossed_at
    assert crossed_at is not None, found
    after_harm, took = ((found.out_at - at).total_seconds() for at in (began, crossed_at))
    print(f"{harm}: out {took:.2f} s after the rule was crossed, {after_harm:.2f} s after the harm: {found}")
    assert crossed_at > began
    assert took <= most_seconds
    assert send(url, "GET", "/traffic").json()["weights"] == {"blue": 100.0, "green": 0.0}


@pytest.mark.slow
def test_a_killed_slot_ends_the_rollout_and_a_killed_control_does_not(url: str, registered: Settings) -> None:
    control, endless = Controlled(registered), {**PATIENT, "hold_seconds": 1e6}
    control.call("begin", "ann", "green", 2, endless)
    _kill(f"SERVE_REPLICA::{APP_NAME}#slot-green#")
    died = datetime.now(UTC)
    control.ask_until(url, lambda rollout: not rollout.running)
    assert control.last().phase == "broken", control.last()
    assert "requests failed" in control.last().reason or "does not answer" in control.last().reason
    assert control.last().ended_at - died < timedelta(seconds=30)  # a few seconds under these rules
    assert ask(url) == 1

    control.call("begin", "ann", "green", 2, endless)
    _kill(f"SERVE_REPLICA::{APP_NAME}#control#")
    control.ask_until(url, lambda rollout: rollout.step == 0)  # the next control goes on
    ended = control.call("cancel", "bob", "enough")
    assert (ended["phase"], ended["reason"]) == ("cancelled", "enough")
    assert [d["kind"] for d in ended["decisions"]] == ["cancel", "advance"]
    assert ask(url) == 1


def _kill(name: str) -> None:
    import ray
    from ray.util import list_named_actors

    (found,) = [a["name"] for a in list_named_actors(all_namespaces=True) if a["name"].startswith(name)]
    ray.kill(ray.get_actor(found, namespace="serve"))
