"""``marketray traffic`` against the service's own routes, slots and store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from marketray import cli_traffic
from marketray.serving.rollouts.journal import Journal
from marketray.serving.rollouts.rollout import break_off
from marketray.serving.store.predictions import PredictionRow, Settlement
from marketray.settings import Settings
from tests.serving.local import TOKEN, Client, LocalService
from tests.test_cli import cli

Run = Any


@pytest.fixture
def run(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> Run:
    """Run a command; exit code, what it printed (parsed with --json), and its errors."""

    def request(method: str, address: str, **more: Any) -> httpx.Response:
        assert address.startswith("http://service/")
        del more["timeout"]
        return client(method, address.removeprefix("http://service"), token=None, **more)

    def command(*arguments: str, as_json: bool = True) -> tuple[int, Any, str]:
        capsys.readouterr()
        options = ("--url", "http://service", *(["--json"] if as_json else []))
        code = cli(monkeypatch, "traffic", *arguments, *options)
        printed = capsys.readouterr()
        told = json.loads(printed.out) if as_json and printed.out else printed.out
        return code, told, printed.err

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.setattr(cli_traffic, "_LOOKS", 0.0)
    monkeypatch.setenv("MARKETRAY_TOKEN", TOKEN)
    return command


def test_the_split_is_shown_and_changed(run: Run) -> None:
    code, shown, _ = run("show")
    assert (code, shown["weights"], shown["arms"]["comparison"]) == (0, {"blue": 100, "green": 0}, None)
    code, shown, _ = run("set", "--green", "10", "--model", "green=8")
    assert (code, shown["weights"], shown["models"]) == (
        0,
        {"blue": 90, "green": 10},
        {"blue": 7, "green": 8},
    )
    assert run("shadow", "green")[1]["shadow"] == "green"
    assert run("shadow", "off")[1]["shadow"] is None
    assert run("ab", "--green-model", "champion")[1]["weights"] == {"blue": 70, "green": 30}
    assert run("rollback")[1]["weights"] == {"blue": 90, "green": 10}
    assert run("set", "--green", "0", "--model", "green=none")[1]["models"] == {"blue": 7, "green": None}
    code, shown, _ = run("show", as_json=False)
    assert code == 0
    assert "blue   100" in shown
    assert "100/0" in shown
    assert "http 127.0.0.1" in shown


def test_a_rollout_is_followed_to_its_end(
    run: Run, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(service.store.database)

    def decide(_seconds: float) -> None:  # in the place of control, while the command sleeps
        stored = journal.rollouts.active()
        assert stored is not None
        now = datetime.now(UTC)
        journal.move(
            stored, break_off(stored.rollout, now, "3 of 3 failed", {}), now, seq=journal.current().seq
        )

    monkeypatch.setattr("marketray.cli_traffic.time.sleep", decide)
    code, shown, error = run("promote", "--model", "8", "--steps", "5,100", "--hold", "1.5m", "--wait")
    assert (code, shown["phase"], shown["steps"]) == (3, "broken", [5, 100])
    assert "rollout 1 of version 8: broken, 3 of 3 failed" in error
    rules = service.store.rollouts.history()[0].rollout.plan.rules
    assert rules.hold_seconds == 90
    code, shown, _ = run("promote", "--model", "8", "--wait", as_json=False)
    assert code == 3
    assert "break: 3 of 3 failed" in shown.splitlines()[0]


def test_a_rollout_begins_and_is_cancelled(run: Run) -> None:
    code, shown, _ = run("promote", "--model", "8")
    assert (code, shown["slot"], shown["phase"]) == (0, "green", "shadow")
    code, _, error = run("promote", "--model", "8")
    assert code == 3
    assert "409 A rollout moves the traffic" in error
    code, _, error = run("set", "--blue", "50")
    assert code == 1
    assert "409 A rollout moves the traffic" in error
    code, shown, _ = run("rollback")
    assert (code, shown["rollout"]["phase"], shown["weights"]["blue"]) == (0, "cancelled", 100)
    code, _, error = run("promote", "--model", "99")
    assert code == 3
    assert "422 There is no such model" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set"], "traffic set: got no change; required: --blue, --green, --model or --sticky"),
        (["set", "--model", "red=7"], "--model: got 'red=7'; required: SLOT=VERSION"),
        (["set", "--model", "green"], "--model: got 'green'; required: SLOT=VERSION"),
        (["shadow", "red"], "traffic shadow: got 'red'; required: blue, green or off"),
        (
            ["ab", "--green-model", "8", "--split", "70"],
            "--split: got '70'; required: percent of blue and of",
        ),
        (["ab", "--green-model", "8", "--split", "a,b"], "--split: got 'a,b'; required: numbers with commas"),
        (["promote", "--hold", "5 weeks"], "--hold: got '5 weeks'; required: a time such as 90s, 5m or 1h"),
    ],
)
def test_wrong_options_exit_2(
    home: object,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli(monkeypatch, "traffic", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_slot_must_be_named_where_both_answer(run: Run) -> None:
    run("set", "--green", "10", "--model", "green=8")
    code, _, error = run("promote", "--model", "8")
    assert code == 2
    assert "--slot is needed: both slots answer requests (90/10 %)" in error
    assert run("promote", "--model", "8", "--slot", "green")[0] == 0


def test_no_token_and_no_service(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETRAY_TOKEN", "another")
    code, _, error = run("set", "--blue", "50")
    assert code == 1
    assert "401 The token is not the service's" in error
    assert "Hint: set MARKETRAY_TOKEN to the service's token" in error

    def refuse(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "request", refuse)
    code, _, error = run("show")
    assert code == 1
    assert "GET http://service/traffic: refused" in error
    assert "start the service with `marketray serve`" in error


def test_arms_are_compared(run: Run, service: LocalService) -> None:
    """Fifteen hours in which both answered each minute, and green was nearer to what came true."""
    service.store.traffic.append(
        service.store.traffic.history()[0].traffic.changed(
            models={"blue": 7, "green": 8}, weights={"blue": 7_000, "green": 3_000}
        ),
        who="test",
        action="set",
    )
    began = datetime.now(UTC).timestamp() - 86_400
    minutes = [datetime.fromtimestamp(began + 60 * minute, UTC) for minute in range(900)]
    common = {"instrument": service.settings.instrument}
    rows = [
        PredictionRow(
            request_id=f"{minute}-{caller}",
            at=at,
            slot=slot,
            shadow=slot == "green",
            model_version=version,
            decision_at=at,
            target_at=at,
            predicted_return=said,
            **common,
        )
        for minute, at in enumerate(minutes)
        for slot, version, said in (("blue", 7, 1e-3), ("green", 8, 5e-4))
        for caller in range(2)  # the second one is answered the same
    ]
    failed = PredictionRow(
        request_id="bad", at=minutes[0], slot="green", model_version=8, status=504, **common
    )
    service.store.predictions.record([*rows, failed])
    due = service.store.predictions.due(datetime.now(UTC), 10_000)
    true = np.random.default_rng(5).normal(0, 1e-4, 900)
    service.store.predictions.settle(Settlement(p.id, true[int(p.request_id.split("-")[0])]) for p in due)
    losses = (1e-3 - true) ** 2, (5e-4 - true) ** 2
    arms = run("show")[1]["arms"]
    assert arms["loss"] == "squared"
    old, new = arms["arms"]
    assert (old["slot"], old["weight"], old["requests"], old["shadow_requests"]) == ("blue", 70, 1_800, 0)
    assert (new["slot"], new["requests"], new["shadow_requests"], new["errors"]) == ("green", 1, 1_800, 1)
    assert (old["decisions"], new["decisions"]) == (900, 900)
    assert [old["mean_loss"], new["mean_loss"]] == [pytest.approx(loss.mean()) for loss in losses]
    found = arms["comparison"]
    assert (found["new"], found["pairs"], found["method"]) == ("green", 900, "paired")
    assert found["difference"] == pytest.approx((losses[1] - losses[0]).mean())
    assert found["verdict"] == "undecided" if found["p_better"] > found["alpha"] else "better"
    shown = run("show", as_json=False)[1]
    assert f"verdict of the sequential test: {found['verdict']}" in shown
    assert "900 pairs" in shown
