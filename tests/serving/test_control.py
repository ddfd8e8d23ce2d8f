"""Control in the real Serve application: a model takes over, is taken back, and is taken out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from marketray.errors import ServingError, TrafficError
from marketray.serving import run as serving
from marketray.serving.app import APP_NAME
from marketray.serving.store import open_store
from marketray.serving.store.rollouts import RolloutActiveError
from marketray.settings import Settings
from tests.serving.market import Market, registered_home, without_number

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


@pytest.fixture(scope="module")
def registered(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose registry holds one model twice, and a third version that answers NaN."""
    home, good = tmp_path_factory.mktemp("home"), market.folders["xgboost"]
    return registered_home(home, market, good, good, without_number(good, home / "nan"))


@pytest.fixture
def url(registered: Settings, ray_local: None) -> Iterator[str]:
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
