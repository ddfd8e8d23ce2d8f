"""A model without a number for what a caller sends has failed: the other slot is asked, and it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketray.serving.schemas import Problem
from marketray.settings import Settings
from tests.serving.local import Client, LocalService
from tests.serving.market import Market, bars_json, without_number

SOUND, SILENT, LAGS = 7, 8, 9


@pytest.fixture
def service(settings: Settings, market: Market, tmp_path: Path) -> LocalService:
    """A sound model in blue, and in green, which all requests go to, the same that answers NaN."""
    good = market.folders["xgboost"]
    folders = {SOUND: good, SILENT: without_number(good, tmp_path / "nan"), LAGS: market.folders["ar"]}
    made = LocalService(settings, folders, {"blue": SOUND, "green": SILENT}, champion=SOUND)
    made.router.traffic = made.router.traffic.changed(weights={"blue": 0, "green": 10_000})
    return made


def asked(service: LocalService) -> list[tuple[str, bool, str | None]]:
    """Slot, whether it is to blame, and the kind of its problem."""
    return [
        (a.slot, a.failed, a.result.kind if isinstance(a.result, Problem) else None) for a in service.attempts
    ]


def rows_of(market: Market, service: LocalService, slot: str) -> dict[str, Any]:
    """The last decision's features as that slot's model takes them."""
    model = service.slots[slot]._model
    assert model is not None
    columns = list(model.forecaster.card.columns)
    (row,) = market.features.tail(1).select(columns).rows()
    values = [None if v is None or not np.isfinite(v) else v for v in row]
    return {"columns": columns, "rows": [values]}


def test_the_other_slot_answers_and_the_silent_model_has_failed(
    service: LocalService, client: Client, market: Market
) -> None:
    bars = bars_json(market.bars.tail(4_000))
    answer = client("POST", "/predict", json={"bars": bars})
    assert (answer.status_code, answer.json()["slot"]) == (200, "blue"), answer.text
    assert answer.json()["predicted_return"] == client("POST", "/predict", json={}).json()["predicted_return"]
    batch = client("POST", "/predict/batch", json=rows_of(market, service, "blue"))
    assert (batch.status_code, batch.json()["slot"]) == (200, "blue"), batch.text
    assert asked(service) == [("green", True, "no-forecast"), ("blue", False, None)] * 3


def test_where_no_other_model_is_the_caller_may_come_again(
    service: LocalService, client: Client, market: Market
) -> None:
    rows = rows_of(market, service, "blue")
    service.router.judge("blue", "it does not answer")
    for path, sent in (("/predict", {"bars": bars_json(market.bars.tail(4_000))}), ("/predict/batch", rows)):
        service.attempts.clear()
        told = client.refused(503, "no-forecast", "POST", path, json=sent)
        assert told["detail"] == "the model answered nan for row 0; required: a finite number"
        assert client("POST", path, json=sent).headers["retry-after"] == "1"
        assert set(asked(service)) == {("green", True, "no-forecast")}


def test_a_lag_that_the_caller_left_out_is_no_failure_of_the_model(
    service: LocalService, client: Client, market: Market
) -> None:
    client("PUT", "/traffic", json={"models": {"green": LAGS}, "weights": {"green": 100}})
    sent = rows_of(market, service, "green")
    assert client("POST", "/predict/batch", json=sent).json()["model_version"] == LAGS
    sent["rows"][0][sent["columns"].index("return_1_lag_0")] = None
    service.attempts.clear()
    told = client.refused(422, "unusable-features", "POST", "/predict/batch", json=sent)
    assert "['return_1_lag_0'] hold NaN; required: every lag in use" in told["detail"]
    assert asked(service) == [("green", False, "unusable-features")]
