"""GET /bars/recent and /predictions/decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from marketray.serving.store.predictions import PredictionRow, Settlement
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market

MINUTE = timedelta(minutes=1)


def test_the_latest_bars_are_the_lakes_and_then_the_live_ones(
    client: Client, service: LocalService, market: Market
) -> None:
    last = market.bars.tail(1)
    live = pl.concat([last.with_columns(pl.col("time") + k * MINUTE, close=5_000.0 + k) for k in (1, 2)])
    prices = pl.concat([last, live]).with_columns(low=1.0, high=9_000.0).drop("outlier")
    service.store.bars.append(INSTRUMENT, prices.tail(2))
    body = client("GET", "/bars/recent?limit=5", token=None).json()
    assert (body["instrument"], body["bar_interval_minutes"]) == (INSTRUMENT, 1)
    close = [*market.bars["close"].tail(3), 5_001.0, 5_002.0]
    assert [bar["close"] for bar in body["bars"]] == close
    ends = [datetime.fromisoformat(bar["end_at"]) for bar in body["bars"]]
    assert ends == [last["time"][0] + k * MINUTE for k in range(-1, 4)]
    assert len(client("GET", "/bars/recent").json()["bars"]) == 240


def test_decisions_of_the_models_that_were_in_the_traffic(client: Client, service: LocalService) -> None:
    client("PUT", "/traffic", json={"models": {"green": 8}})
    start = datetime(2024, 2, 1, 15, tzinfo=UTC)

    def said(minute: int, slot: str, version: int, who: str) -> PredictionRow:
        at = start + minute * MINUTE
        return PredictionRow(
            request_id=f"{who}-{minute}", at=at, slot=slot, instrument=INSTRUMENT, model_version=version,
            decision_at=at, target_at=at + 30 * MINUTE, last_close=5_000.0, predicted_return=1e-4 * minute,
            direction="up",
        )  # fmt: skip

    service.store.predictions.record(
        [
            *(said(m, "blue", 7, who) for m in range(4) for who in "ab"),
            said(2, "green", 8, "c"),
            said(9, "green", 5, "d"),  # a version of which the traffic knows nothing
        ]
    )
    due = service.store.predictions.due(start + 32 * MINUTE)
    service.store.predictions.settle([Settlement(p.id, None, "no close") for p in due])
    body = client("GET", "/predictions/decisions", token=None).json()
    told = [
        ((datetime.fromisoformat(d["decision_at"]) - start) / MINUTE, d["slot"], d["model_version"])
        for d in body["decisions"]
    ]
    assert told == [(3, "blue", 7), (2, "green", 8), (2, "blue", 7), (1, "blue", 7), (0, "blue", 7)]
    assert [d["actual_reason"] for d in body["decisions"]] == [None, *["no close"] * 4]
    newest = body["decisions"][0]
    assert newest["predicted_return"] == pytest.approx(3e-4)
    assert newest["actual_return"] is newest["probability_up"] is None
    assert client("GET", "/predictions/decisions?limit=2").json()["decisions"] == body["decisions"][:2]


@pytest.mark.parametrize("path", ["/bars/recent", "/predictions/decisions"])
@pytest.mark.parametrize("limit", [0, 1_001, "many"])
def test_limits(client: Client, path: str, limit: object) -> None:
    told = client.refused(422, "invalid-request", "GET", f"{path}?limit={limit}")
    assert [e["field"] for e in told["errors"]] == ["query.limit"]
