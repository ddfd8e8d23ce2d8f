"""POST /bars: all or nothing, known bars, conflicts, and what subscribers are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marketray.errors import SettingsError
from marketray.features.online import OnlineState
from marketray.lake import Lake
from marketray.models import load_model
from marketray.settings import Settings, load_settings
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market, bars_json, store_bars

IN_LAKE = 7_900
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(home: Path, market: Market) -> Settings:
    """The lake ends a hundred bars before the market does."""
    made = load_settings(None, {"home": str(home), "instrument": INSTRUMENT})
    store_bars(Lake(made.lake_uri), market.bars.head(IN_LAKE))
    return made


def later(market: Market, first: int, count: int) -> list[dict[str, Any]]:
    """Bars that follow on the lake's last one."""
    return bars_json(market.bars.slice(IN_LAKE + first, count))


def test_new_bars_make_the_next_forecast(client: Client, service: LocalService, market: Market) -> None:
    answer = client("POST", "/bars", json={"instrument": INSTRUMENT, "bars": later(market, 0, 3)})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["taken"], body["known"], body["problem"]) == (3, 0, None)
    end = market.bars["time"][IN_LAKE + 2] + MINUTE
    assert datetime.fromisoformat(body["last_bar_end_at"]) == end
    forecast = body["forecast"]
    model = load_model(market.folders["xgboost"])
    row = (
        market.features.slice(IN_LAKE + 2, 1).select(model.columns).cast(dict.fromkeys(model.columns, float))
    )
    expected = float(model.predict(row.to_numpy().astype("float32"))[0])
    assert forecast["predicted_return"] == pytest.approx(expected, rel=1e-6)
    assert forecast["last_close"] == market.bars["close"][IN_LAKE + 2]
    later_asked = client("POST", "/predict").json()
    assert {k: later_asked[k] for k in forecast} == forecast
    (event,) = service.store.events.after(0)
    assert (event.kind, event.key) == ("forecast", f"{INSTRUMENT}|{end.isoformat()}|7")
    assert event.payload["predicted_return"] == forecast["predicted_return"]
    assert event.payload["bar"] == {
        "time": (end - MINUTE).isoformat(),
        "close": market.bars["close"][IN_LAKE + 2],
    }


def test_bars_are_taken_once(client: Client, service: LocalService, market: Market) -> None:
    """Also where a feed sends them again, with some that the lake has, or one twice in a request."""
    client("POST", "/bars", json={"bars": later(market, 0, 3)})
    again = client("POST", "/bars", json={"bars": later(market, 0, 3)}).json()
    assert (again["taken"], again["known"]) == (0, 3)
    overlapping = client("POST", "/bars", json={"bars": later(market, -5, 10)}).json()
    assert (overlapping["taken"], overlapping["known"]) == (2, 8)
    (bar,) = later(market, 5, 1)
    twice = client("POST", "/bars", json={"bars": [bar, bar]}).json()
    assert (twice["taken"], twice["known"]) == (1, 1)
    assert service.store.bars.count(INSTRUMENT) == 6
    assert [e.kind for e in service.store.events.after(0)] == ["forecast"] * 3


@pytest.mark.parametrize("first", [-5, 0, 1])
def test_another_bar_at_a_known_time_is_a_conflict(
    client: Client, service: LocalService, market: Market, first: int
) -> None:
    client("POST", "/bars", json={"bars": later(market, 0, 2)})
    bars = later(market, first, 4 - first)
    bars[0]["high"] += 1.0
    told = client.refused(409, "conflicting-bar", "POST", "/bars", json={"bars": bars})
    assert "(known, got)={'high': (" in told["detail"]
    assert service.store.bars.count(INSTRUMENT) == 2


def test_one_wrong_bar_refuses_all(client: Client, service: LocalService, market: Market) -> None:
    good = later(market, 0, 2)
    half = {**good[1], "time": (market.bars["time"][IN_LAKE + 1] + MINUTE / 2).isoformat()}
    saturday = {**good[1], "time": "2024-02-10T12:00:00+00:00"}
    told = client.refused(422, "refused-bars", "POST", "/bars", json={"bars": [*good, half, saturday]})
    assert [(e["field"], e["rule"]) for e in told["errors"]] == [
        ("body.bars.2", "overlapping"),
        ("body.bars.3", "outside_session"),
    ]
    assert told["detail"].endswith("(2 of 4 bars refused, none taken)")
    assert service.store.bars.count(INSTRUMENT) == 0
    ancient = {**good[0], "time": "1999-01-04T15:00:00Z"}
    told = client.refused(422, "refused-bars", "POST", "/bars", json={"bars": [ancient]})
    assert told["errors"][0]["rule"] == "late"


def test_bars_of_another_instrument(client: Client, market: Market) -> None:
    body = {"instrument": "OTHER", "bars": later(market, 0, 1)}
    assert client.refused(422, "unknown-instrument", "POST", "/bars", json=body)["got"] == "'OTHER'"


@pytest.mark.parametrize("year", ["0001", "1899", "2200", "9999"])
def test_times_of_no_market(client: Client, market: Market, year: str) -> None:
    bar = {**later(market, 0, 1)[0], "time": f"{year}-01-01T00:00:00+05:00"}
    told = client.refused(422, "invalid-request", "POST", "/bars", json={"bars": [bar]})
    assert told["errors"][0]["required"].endswith("required: 1900 … 2199")


def test_bars_need_the_token(client: Client, market: Market) -> None:
    bars = {"bars": later(market, 0, 1)}
    client.refused(401, "unauthorized", "POST", "/bars", json=bars, token=None)
    assert client("POST", "/bars", json=bars).json()["taken"] == 1  # none was taken before


def test_without_a_forecast_the_reason_is_told(home: Path, settings: Settings, market: Market) -> None:
    now = market.bars["time"][IN_LAKE] + timedelta(minutes=40)
    made = load_settings(None, {"home": str(home), "instrument": INSTRUMENT, "clock": now.isoformat()})
    client = Client.of(LocalService(made, {7: market.folders["xgboost"]}, {"blue": 7, "green": None}, 7))
    body = client("POST", "/bars", json={"bars": later(market, 0, 2)}).json()
    assert (body["taken"], body["forecast"]) == (2, None)
    assert body["problem"]["type"] == "urn:marketray:problem:stale-bars"
    assert datetime.fromisoformat(body["last_bar_end_at"]) == market.bars["time"][IN_LAKE + 1] + MINUTE
    told = client.refused(422, "refused-bars", "POST", "/bars", json={"bars": later(market, 50, 1)})
    assert told["errors"][0]["rule"] == "future"


def test_without_a_state_bars_are_not_taken(home: Path, market: Market) -> None:
    made = load_settings(None, {"home": str(home / "empty"), "instrument": INSTRUMENT})
    client = Client.of(LocalService(made, {7: market.folders["xgboost"]}, {"blue": 7, "green": None}, 7))
    told = client.refused(503, "no-state", "POST", "/bars", json={"bars": later(market, 0, 2)})
    assert "holds no bar of TEST_USD" in told["detail"]


def test_dates_beyond_the_calendar(client: Client, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(*_: Any) -> None:
        msg = "market.calendar=XNYS: got 2150-01-05; required: up to 2149"
        raise SettingsError(msg)

    monkeypatch.setattr(OnlineState, "refusals", beyond)
    told = client.refused(422, "unusable-bars", "POST", "/bars", json={"bars": later(market, 0, 1)})
    assert "required: up to 2149" in told["detail"]


def test_bars_at_times_are_found(service: LocalService, market: Market) -> None:
    table = market.bars.slice(IN_LAKE, 5).drop("outlier")
    service.store.bars.append(INSTRUMENT, table)
    times = [table["time"][3], table["time"][1], datetime(2020, 1, 1, tzinfo=UTC)]
    found = service.store.bars.at(INSTRUMENT, times).sort("time")
    assert found.equals(table.filter(pl.col("time").is_in(times)).select(found.columns))
    assert service.store.bars.at(INSTRUMENT, []).is_empty()
