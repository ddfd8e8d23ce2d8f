"""The routes over a real slot, without Serve: every answer and every refusal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from marketray.evaluation.uncertainty import Uncertainty
from marketray.models import load_model
from marketray.serving.http.api import create_api
from marketray.serving.schemas import PredictResponse
from marketray.settings import Settings, load_settings
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market, Placed, bars_json

RESPONSE_KEYS = {
    *("timestamp", "target_at", "instrument", "horizon_minutes", "last_close", "prediction"),
    *("predicted_return", "direction", "confidence", "probability_up", "interval", "features_used"),
    *("model_version", "model_type", "slot", "test_rmse_pct", "feature_catalog", "evidence", "request_id"),
    *("latency_ms", "intervals"),
}


class Api(Client):
    """A client of the version that `config` places."""

    def __init__(self, config: Placed) -> None:
        models = {"blue": config.version, "green": None}
        service = LocalService(config.settings, {config.version: config.folder}, models, config.version)
        super().__init__(create_api(service))

    def problem(self, status: int, kind: str, **more: Any) -> dict[str, Any]:
        """The problem that POST /predict answers."""
        return self.refused(status, kind, "POST", "/predict", **more)


@pytest.fixture
def api(config: Placed) -> Api:
    return Api(config)


def test_latest_forecast(api: Api, config: Placed, market: Market) -> None:
    answer = api("POST", "/predict", json={}, headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == RESPONSE_KEYS
    model = load_model(Path(config.folder))
    row = market.features.tail(1).select(model.columns).cast(dict.fromkeys(model.columns, float))
    expected = float(model.predict(row.to_numpy().astype("float32"))[0])
    close = market.bars["close"][-1]
    decision_at = market.bars["time"][-1] + timedelta(minutes=1)
    assert body["predicted_return"] == pytest.approx(expected, rel=1e-6)
    assert body["prediction"] == pytest.approx(close * (1 + expected), rel=1e-12)
    assert body["direction"] == ("up" if expected > 0 else "down" if expected < 0 else "flat")
    assert body["last_close"] == close
    assert datetime.fromisoformat(body["timestamp"]) == decision_at
    assert datetime.fromisoformat(body["target_at"]) == decision_at + timedelta(minutes=30)
    assert body["features_used"] == len(model.columns) >= 40
    assert (body["model_version"], body["model_type"], body["slot"]) == (7, "xgboost", "blue")
    assert body["evidence"] == {"verdict": "bootstrap", "r2_oos": 0.01, "p_value": 0.02}
    assert body["test_rmse_pct"] == 0.123
    assert body["interval"] is body["intervals"] is body["confidence"] is body["probability_up"] is None
    assert body["request_id"] == "abc-1"
    assert 0 < body["latency_ms"] < 5_000


def test_forecast_from_the_same_bars_is_the_same(api: Api, market: Market) -> None:
    latest = api("POST", "/predict").json()
    sent = api(
        "POST", "/predict", json={"instrument": INSTRUMENT, "bars": bars_json(market.bars.tail(4_000))}
    )
    assert sent.status_code == 200, sent.text
    changing = {"request_id", "latency_ms"}
    assert {k: v for k, v in sent.json().items() if k not in changing} == {
        k: v for k, v in latest.items() if k not in changing
    }
    assert sent.json()["request_id"] != latest["request_id"]


def test_direction_model(config: Placed, market: Market) -> None:
    body = Api(replace(config, folder=str(market.folders["direction"])))("POST", "/predict").json()
    assert 0 < body["probability_up"] < 1
    assert body["direction"] == ("up" if body["probability_up"] > 0.5 else "down")
    assert body["predicted_return"] is body["prediction"] is body["confidence"] is None


def test_a_model_with_uncertainty_answers_intervals_and_calibrated_probabilities(
    config: Placed, uncertain: dict[str, Path]
) -> None:
    stored = Uncertainty.read(uncertain["xgboost"])
    assert stored is not None
    api = Api(replace(config, folder=str(uncertain["xgboost"])))
    body = api("POST", "/predict").json()
    assert set(body) == RESPONSE_KEYS
    assert [i["level"] for i in body["intervals"]] == [0.5, 0.8, 0.95]
    assert body["interval"] == body["intervals"][1]
    for inner, outer in pairwise(body["intervals"]):
        assert outer["low"] < inner["low"] < body["prediction"] < inner["high"] < outer["high"]
    middle = (body["interval"]["low"] + body["interval"]["high"]) / 2
    assert middle == pytest.approx(body["prediction"], rel=1e-12)
    up = body["probability_up"]
    flat = stored.calibration.flat_share
    expected = {"up": up, "down": 1 - up - flat, "flat": flat}[body["direction"]]
    assert body["confidence"] == pytest.approx(expected)
    info = api("GET", "/model-info").json()["uncertainty"]
    assert (info["method"], info["levels"]) == (stored.method, [0.5, 0.8, 0.95])
    assert datetime.fromisoformat(info["as_of"]) == stored.as_of

    body = Api(replace(config, folder=str(uncertain["direction"])))("POST", "/predict").json()
    assert body["predicted_return"] is body["prediction"] is None
    centre = (body["interval"]["low"] + body["interval"]["high"]) / 2
    assert centre == pytest.approx(body["last_close"], rel=1e-12)
    assert body["direction"] == ("up" if body["probability_up"] > 0.5 else "down")
    assert 0 < body["confidence"] < 1


def test_probes_and_information(api: Api, market: Market) -> None:
    assert api("GET", "/health").json() == {"status": "healthy", "model_loaded": True}
    ready = api("GET", "/ready")
    assert ready.status_code == 200
    assert ready.json()["model_version"] == 7
    info = api("GET", "/model-info").json()
    assert info["lookback_bars"] > 60
    assert len(info["features"]) == api("POST", "/predict").json()["features_used"]
    assert "volume" in info["inputs"]
    end = market.bars["time"][-1] + timedelta(minutes=1)
    assert datetime.fromisoformat(info["last_bar_end_at"]) == end
    for path in api("GET", "/").json()["endpoints"]:
        if path != "/predict":
            assert api("GET", path).status_code == 200, path


def test_documented_examples_work_as_written(api: Api) -> None:
    schema = api("GET", "/openapi.json").json()
    operation = schema["paths"]["/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 2
    for example in examples.values():
        answer = api("POST", "/predict", json=example["value"])
        assert answer.status_code == 200, answer.text
        PredictResponse.model_validate(answer.json())
    for status in ("400", "422", "503", "504"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    bar = schema["components"]["schemas"]["Bar"]["properties"]
    example = {name: spec["examples"][0] for name, spec in bar.items()}
    body = api.problem(422, "unusable-bars", json={"bars": [example]})
    assert body["got"] == "1 bars"


def changed(**values: Any) -> dict[str, Any]:
    bar = {"time": "2024-02-01T15:00:00Z", "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5}
    return {k: v for k, v in {**bar, **values}.items() if v != "absent"}


@pytest.mark.parametrize(
    ("bars", "field", "got", "required"),
    [
        ([changed(time="2024-02-01T15:00:00")], "body.bars.0.time", "2024-02-01T15:00:00", "timezone"),
        ([changed(time=1706799600)], "body.bars.0.time", "1706799600", "ISO 8601 time with zone"),
        ([changed(time="1706799600")], "body.bars.0.time", "1706799600", "ISO 8601 time with zone"),
        ([changed(time="absent")], "body.bars.0.time", "dict of 4", "Field required"),
        ([changed(close=-1)], "body.bars.0.close", "-1", "greater than 0"),
        ([changed(close="ten")], "body.bars.0.close", "ten", "valid number"),
        ([changed(high=10.2)], "body.bars.0", "dict of 5", "required: low <= open, close <= high"),
        ([changed(bid=3, ask=2)], "body.bars.0", "dict of 7", "required: bid <= ask"),
        ([changed(volume=-1)], "body.bars.0.volume", "-1", "greater than or equal to 0"),
        ([changed(vol=1)], "body.bars.0.vol", "1", "Extra inputs"),
        ([changed(), changed()], "body", "dict of 1", "required: sorted times without duplicates"),
        (
            [changed(), changed(time="2024-02-01T09:59:00-05:00")],
            "body",
            "dict of 1",
            r"bars[1].time: got 2024-02-01T14:59:00+00:00 after 2024-02-01T15:00:00+00:00",
        ),
        ([changed(bid=1), changed(time="2024-02-01T15:01:00Z")], "body", "dict of 1", "bars.bid: got 1 of 2"),
        ([], "body.bars", "list of 0", "at least 1"),
        ([changed()] * 10_001, "body.bars", "list of 10001", "at most 10000"),
        ("x", "body.bars", "'x'", "valid list"),
    ],
)
def test_wrong_bars_name_the_field(api: Api, bars: Any, field: str, got: str, required: str) -> None:
    body = api.problem(422, "invalid-request", json={"bars": bars})
    assert body["errors"][0]["field"] == field
    assert got in body["got"]
    assert required in body["required"]
    assert field in body["detail"]


def test_no_number_is_not_a_number(api: Api) -> None:
    text = json.dumps({"bars": [changed(close=float("nan"))]})
    body = api.problem(422, "invalid-request", content=text, headers={"Content-Type": "application/json"})
    assert body["errors"][0]["field"] == "body.bars.0.close"


@pytest.mark.parametrize("content", ["{", "", "[1", '{"bars": }'])
def test_malformed_json(api: Api, content: str) -> None:
    headers = {"Content-Type": "application/json"}
    if not content:  # no body at all is a request for the latest forecast
        assert api("POST", "/predict", content=content, headers=headers).status_code == 200
        return
    body = api.problem(400, "malformed-json", content=content, headers=headers)
    assert body["required"] == "a JSON object"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_another_content_type_is_named(api: Api, kind: str) -> None:
    """`curl -d` alone sends a form."""
    headers = {"Content-Type": kind} if kind else {}
    body = api.problem(422, "invalid-request", content="{}", headers=headers)
    assert body["got"] == (kind or "no content type")
    assert body["required"] == "application/json"


def test_text_that_utf8_cannot_carry(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    api.problem(422, "invalid-request", content='{"instrument": "\\ud800"}', headers=headers)
    api.problem(422, "invalid-request", content='{"\\ud800": 1}', headers=headers)


def test_bars_that_the_model_cannot_use(api: Api, market: Market) -> None:
    lookback = api("GET", "/model-info").json()["lookback_bars"]
    body = api.problem(422, "unusable-bars", json={"bars": bars_json(market.bars.tail(lookback - 1))})
    assert body["got"] == f"{lookback - 1} bars"
    assert body["required"].startswith(f"at least {lookback}")
    bars = bars_json(
        market.bars.tail(lookback).drop("volume", "bid", "ask").with_columns(volume=None, bid=None, ask=None)
    )
    body = api.problem(422, "unusable-bars", json={"bars": bars})
    assert body["detail"].startswith("bars.volume: got no value")


def test_another_instrument(api: Api) -> None:
    body = api.problem(422, "unknown-instrument", json={"instrument": "EURUSD"})
    assert (body["got"], body["required"]) == ("'EURUSD'", INSTRUMENT)


def test_request_id_is_checked(api: Api) -> None:
    body = api.problem(422, "invalid-request", headers={"X-Request-ID": "a" * 129})
    assert body["errors"][0]["field"] == "header.X-Request-ID"


def test_unknown_path_and_method(api: Api) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/predict", 405)):
        answer = api(method, path)
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"


def at_clock(config: Placed, clock: str) -> Placed:
    settings = config.settings
    made = load_settings(None, {"home": str(settings.home), "instrument": INSTRUMENT, "clock": clock})
    return replace(config, settings=made)


def test_stale_bars(config: Placed, market: Market) -> None:
    end = market.bars["time"][-1] + timedelta(minutes=1)
    fresh = Api(at_clock(config, (end + timedelta(minutes=15)).isoformat()))
    assert fresh("POST", "/predict").status_code == fresh("GET", "/ready").status_code == 200
    stale = Api(at_clock(config, (end + timedelta(minutes=15, seconds=6)).isoformat()))
    body = stale.problem(503, "stale-bars")
    assert body["got"] == "15.1 minutes"
    assert body["required"] == "at most 15 minutes (serving.max_bar_age_minutes)"
    assert stale("GET", "/ready").status_code == 503
    assert stale("POST", "/predict").headers["retry-after"] == "1"
    assert stale("GET", "/health").json() == {"status": "healthy", "model_loaded": True}
    bars = {"bars": bars_json(market.bars.tail(4_000))}
    assert stale("POST", "/predict", json=bars).status_code == 200  # the caller's own bars have no age
    assert Api(at_clock(config, "system")).problem(503, "stale-bars")


def test_bars_after_the_clock_are_not_used(config: Placed, market: Market) -> None:
    now = market.bars["time"][6_000] + timedelta(seconds=30)
    body = Api(at_clock(config, now.isoformat()))("POST", "/predict").json()
    assert datetime.fromisoformat(body["timestamp"]) == market.bars["time"][6_000].astimezone(UTC)
    assert body["last_close"] == market.bars["close"][5_999]


def test_without_a_usable_model(config: Placed, tmp_path: Path, market: Market) -> None:
    folder = tmp_path / "model"
    shutil.copytree(config.folder, folder)
    card = json.loads((folder / "serving.json").read_text())
    (folder / "serving.json").write_text(json.dumps({**card, "catalog_hash": "f" * 32}))
    api = Api(replace(config, folder=str(folder)))
    body = api.problem(503, "no-model")
    assert f"the model was trained on {'f' * 32}" in body["detail"]
    assert "bars" not in body
    assert api("GET", "/ready").status_code == api("GET", "/model-info").status_code == 503
    assert api("GET", "/health").json() == {"status": "degraded", "model_loaded": False}
    assert api.problem(503, "no-model", json={"bars": bars_json(market.bars.tail(3))})


def test_without_bars_in_the_lake(config: Placed, market: Market, tmp_path: Path) -> None:
    empty: Settings = load_settings(None, {"home": str(tmp_path / "empty"), "instrument": INSTRUMENT})
    api = Api(replace(config, settings=empty))
    body = api.problem(503, "no-state")
    assert "holds no bar of TEST_USD" in body["detail"]
    assert api("GET", "/model-info").json()["last_bar_end_at"] is None
    bars = {"bars": bars_json(market.bars.tail(4_000))}
    assert api("POST", "/predict", json=bars).status_code == 200


def test_a_bug_shows_no_trace(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> dict[str, Any]:
        msg = "secret detail"
        raise KeyError(msg)

    monkeypatch.setattr(LocalService, "predict", broken)
    body = api.problem(500, "internal")
    assert "secret" not in json.dumps(body)
