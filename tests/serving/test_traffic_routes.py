"""/traffic, /traffic/rollout and /reload-model."""

from __future__ import annotations

from typing import Any

import pytest

from marketray.errors import (
    LakeError,
    MarketrayError,
    RegistryError,
    ServingError,
    SettingsError,
    StoreError,
    TrafficError,
)
from marketray.registry import UnknownVersionError
from marketray.serving.http.failures import problem_of
from marketray.serving.store.live_bars import ConflictingBarError
from marketray.serving.store.predictions import CursorError
from marketray.serving.store.rollouts import RolloutActiveError
from marketray.serving.store.traffic_log import StaleTrafficError
from marketray.settings_serving import RolloutSettings
from tests.serving.local import Client, LocalService

KEYS = {
    *("weights", "models", "answering", "unwell", "shadow", "sticky", "seq", "at", "who", "history"),
    "rollout",
}


def test_traffic_is_shown(refusing: Client) -> None:
    answer = refusing("GET", "/traffic", token=None)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == KEYS
    assert body["weights"] == {"blue": 100.0, "green": 0.0}
    assert body["models"] == body["answering"] == {"blue": 7, "green": None}
    assert (body["shadow"], body["sticky"], body["seq"], body["who"]) == (None, "client", 1, "test")
    assert body["unwell"] == {}
    assert body["rollout"] is None
    (entry,) = body["history"]
    assert set(entry) == {"seq", "at", "who", "action", "reason", "weights", "models", "shadow"}
    assert entry["action"] == "declare"


def test_traffic_is_changed_step_by_step(client: Client, service: LocalService) -> None:
    body = client("PUT", "/traffic", json={"models": {"green": "champion"}}).json()
    assert body["models"] == body["answering"] == {"blue": 7, "green": 8}
    body = client("PUT", "/traffic", json={"weights": {"green": 12.5}, "sticky": "instrument"}).json()
    assert body["weights"] == {"blue": 87.5, "green": 12.5}
    assert body["sticky"] == "instrument"
    assert service.router.traffic.weights == {"blue": 8_750, "green": 1_250}
    body = client("PUT", "/traffic", json={"shadow": "green"}).json()
    assert (body["shadow"], body["weights"]["green"], body["sticky"]) == ("green", 12.5, "instrument")
    body = client("PUT", "/traffic", json={"shadow": None}).json()
    assert body["shadow"] is None
    assert [entry["seq"] for entry in body["history"]] == [5, 4, 3, 2, 1]
    assert body["history"][0]["who"].startswith("http ")
    assert body == client("GET", "/traffic").json()
    service.router.judge("green", "it is late")
    assert client("GET", "/traffic").json()["unwell"] == {"green": "it is late"}


@pytest.mark.parametrize(
    ("change", "field", "required"),
    [
        ({}, "body", "required: weights, models, shadow or sticky"),
        ({"weights": None}, "body", "required: weights, models, shadow or sticky"),
        ({"weights": {}}, "body.weights", "at least 1"),
        ({"weights": {"red": 1}}, "body.weights.red.[key]", "'blue' or 'green'"),
        ({"weights": {"blue": 101}}, "body.weights.blue", "less than or equal to 100"),
        ({"weights": {"blue": -1}}, "body.weights.blue", "greater than or equal to 0"),
        ({"models": {"blue": 0}}, "body.models.blue", "greater than or equal to 1"),
        ({"models": {"blue": True}}, "body.models.blue", "valid"),
        ({"shadow": "red"}, "body.shadow", "'blue' or 'green'"),
        ({"sticky": "hour"}, "body.sticky", "'client' or 'instrument'"),
        ({"speed": 1}, "body.speed", "Extra inputs"),
    ],
)
def test_what_is_no_traffic_names_the_field(refusing: Client, change: Any, field: str, required: str) -> None:
    body = refusing.refused(422, "invalid-request", "PUT", "/traffic", json=change)
    assert body["errors"][0]["field"].startswith(field)
    assert required in body["errors"][0]["required"]
    assert refusing("GET", "/traffic").json()["seq"] == 1


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        ({"weights": {"green": 10}}, "unusable-traffic", "green is empty and has weight 1000"),
        ({"weights": {"blue": 50, "green": 40}}, "unusable-traffic", "green is empty"),
        ({"weights": {"blue": 99.999}}, "unusable-traffic", "percent to 1/100"),
        ({"models": {"blue": None}}, "unusable-traffic", "blue is empty and has weight 10000"),
        ({"shadow": "green"}, "unusable-traffic", "the shadow green is empty"),
        ({"models": {"green": 3}}, "unknown-version", "no version or alias 3"),
        ({"models": {"green": "challenger"}}, "unknown-version", "no version or alias 'challenger'"),
    ],
)
def test_traffic_that_does_not_fit_is_refused(refusing: Client, change: Any, kind: str, detail: str) -> None:
    assert detail in refusing.refused(422, kind, "PUT", "/traffic", json=change)["detail"]
    assert refusing("GET", "/traffic").json()["seq"] == 1


def test_a_rollout_begins_and_is_cancelled(client: Client) -> None:
    asked = {"slot": "green", "model": "champion", "steps": [10, 100], "hold_seconds": 5}
    answer = client("POST", "/traffic/rollout", json=asked)
    assert answer.status_code == 200, answer.text
    begun = answer.json()
    assert (begun["id"], begun["phase"], begun["slot"], begun["version"]) == (1, "shadow", "green", 8)
    assert (begun["step"], begun["steps"], begun["ended_at"]) == (-1, [10.0, 100.0], None)
    assert begun["who"].startswith("http ")
    shown = client("GET", "/traffic").json()
    assert shown["rollout"] == begun
    assert shown["shadow"] == "green"
    for method, path, body in (
        ("POST", "/traffic/rollout", asked),
        ("PUT", "/traffic", {"weights": {"blue": 50}}),
        ("POST", "/reload-model", {}),
    ):
        told = client.refused(409, "rollout-active", method, path, json=body)
        assert "rollout 1 (by http " in told["detail"]
    ended = client("DELETE", "/traffic/rollout").json()
    assert (ended["phase"], ended["ended_at"] is None) == ("cancelled", False)
    assert [d["kind"] for d in ended["decisions"]] == ["cancel"]
    assert client("GET", "/traffic").json()["rollout"] == ended
    assert client.refused(409, "unfit-traffic", "DELETE", "/traffic/rollout")["detail"].startswith(
        "no rollout"
    )


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"steps": [5, 1]}, "body"),
        ({"steps": [1e308, 100]}, "body"),
        ({"hold_seconds": -1}, "body.hold_seconds"),
        ({"alpha": 1}, "body.alpha"),
        ({"window_seconds": 1e300}, "body.window_seconds"),
        ({"patience": 1}, "body.patience"),
        ({"slot": "red"}, "body.slot"),
    ],
)
def test_a_rollout_by_no_rules(refusing: Client, rules: dict[str, Any], field: str) -> None:
    asked = {"slot": "green", "model": 8, **rules}
    body = refusing.refused(422, "invalid-request", "POST", "/traffic/rollout", json=asked)
    assert body["errors"][0]["field"] == field


def test_every_rule_of_the_settings_can_be_given(client: Client) -> None:
    rules = RolloutSettings().model_dump(mode="json")
    begun = client("POST", "/traffic/rollout", json={"slot": "green", "model": 9, **rules})
    assert begun.status_code == 200, begun.text


def test_reload_puts_a_version_into_the_busiest_slot(client: Client) -> None:
    body = client("POST", "/reload-model").json()
    assert body["models"] == body["answering"] == {"blue": 8, "green": None}
    body = client("POST", "/reload-model", json={"slot": "green", "model": 9}).json()
    assert body["answering"] == {"blue": 8, "green": 9}
    assert client("POST", "/predict").json()["model_version"] == 8
    assert client.refused(422, "unknown-version", "POST", "/reload-model", json={"model": 77})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/traffic"),
        ("POST", "/traffic/rollout"),
        ("DELETE", "/traffic/rollout"),
        ("POST", "/reload-model"),
    ],
)
def test_changes_need_the_token(client: Client, service: LocalService, method: str, path: str) -> None:
    client.refused(401, "unauthorized", method, path, token=None)
    client.refused(401, "unauthorized", method, path, token="other")
    assert client("GET", "/traffic").json()["seq"] == 1
    service.token = None
    Client.of(service).refused(403, "no-token", method, path)


def test_the_document_names_the_token(refusing: Client) -> None:
    document = refusing("GET", "/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    secured = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    assert {("put", "/traffic"), ("post", "/reload-model")} <= secured
    assert ("get", "/traffic") not in secured


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (StaleTrafficError, 409, "stale-traffic"),
        (RolloutActiveError, 409, "rollout-active"),
        (ConflictingBarError, 409, "conflicting-bar"),
        (TrafficError, 409, "unfit-traffic"),
        (CursorError, 422, "unusable-cursor"),
        (SettingsError, 422, "unusable-traffic"),
        (UnknownVersionError, 422, "unknown-version"),
        (RegistryError, 503, "no-registry"),
        (ServingError, 422, "unusable-model"),
        (StoreError, 503, "no-store"),
        (LakeError, 503, "no-lake"),
    ],
)
def test_errors_are_told_as_problems(error: type[MarketrayError], status: int, kind: str) -> None:
    told = problem_of(error("what was got", hint="what to do"))
    assert (told.status, told.type) == (status, f"urn:marketray:problem:{kind}")
    assert (told.detail, told.hint) == ("what was got", "what to do")


def test_other_errors_tell_nothing() -> None:
    told = problem_of(MarketrayError("a secret path"))
    assert told.status == 500
    assert "secret" not in told.model_dump_json()
