"""/predictions/history, /news/recent, /predict/batch, and the drift routes that are yet to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from marketray.ingest.schemas import ARTICLE_SCHEMA
from marketray.lake import Lake, Manifest
from marketray.models import load_model
from marketray.sentiment.publish import publish_sentiment
from marketray.sentiment.recent import RECENT, recent_news
from marketray.serving.store.predictions import PredictionRow, Settlement
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market

START = datetime(2024, 5, 1, 14, 30, tzinfo=UTC)


def batch(market: Market, columns: list[str], count: int = 50) -> dict[str, Any]:
    rows = market.features.tail(count).select(columns).rows()
    return {
        "columns": columns,
        "rows": [[None if v is None or not np.isfinite(v) else float(v) for v in row] for row in rows],
    }


def test_a_batch_is_what_the_model_says(client: Client, service: LocalService, market: Market) -> None:
    model = load_model(market.folders["xgboost"])
    columns = list(model.columns)
    matrix = market.features.tail(50).select(columns).to_numpy().astype("float32")
    body = client(
        "POST", "/predict/batch", json=batch(market, columns), headers={"X-Request-ID": "b-1"}
    ).json()
    assert body["values"] == pytest.approx(model.predict(matrix).tolist(), rel=1e-6)
    assert (body["slot"], body["model_version"], body["task"], body["request_id"]) == (
        *("blue", 7, "regression"),
        "b-1",
    )
    assert len(body["feature_catalog"]) == 32
    assert body["latency_ms"] > 0
    turned = client("POST", "/predict/batch", json=batch(market, columns[::-1])).json()
    assert turned["values"] == body["values"]
    client("PUT", "/traffic", json={"models": {"green": 9}, "weights": {"green": 100}})
    other = client("POST", "/predict/batch", json=batch(market, columns)).json()
    assert (other["slot"], other["task"]) == ("green", "direction")
    assert all(0 < value < 1 for value in other["values"])
    assert [a.ask.features is not None for a in service.attempts] == [True] * 3


def test_a_batch_goes_to_the_other_slot_where_one_fails(
    client: Client, service: LocalService, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    client("PUT", "/traffic", json={"models": {"green": 7}, "shadow": "green"})
    service.attempts.clear()

    async def late(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(service.slots["blue"], "predict_features", late)
    columns = list(load_model(market.folders["xgboost"]).columns)
    assert client("POST", "/predict/batch", json=batch(market, columns, 2)).json()["slot"] == "green"
    assert [(a.slot, a.failed, a.shadow) for a in service.attempts] == [
        ("blue", True, False),
        ("green", False, False),
    ]


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"columns": ["close"]}, "invalid-request", "rows[0]: got 2 values; required: 1"),
        ({"columns": ["a", "b"]}, "unusable-features", "columns: got 2 columns, which lack"),
        ({"rows": []}, "invalid-request", "at least 1"),
        ({"rows": [[1.0, 2.0]] * 10_001}, "invalid-request", "at most 10000"),
        ({"rows": [[1.0, "2"]]}, "invalid-request", "body.rows.0.1"),
        ({"rows": [["x"] * 2] * 10_000}, "invalid-request", "(1 wrong in all)"),
        ({"rows": [[1.0, True]]}, "invalid-request", "body.rows.0.1"),
        ({"rows": 3}, "invalid-request", "body.rows"),
        ({"rows": [[-4e103, None]]}, "invalid-request", "body.rows.0.0"),
    ],
)
def test_what_is_no_batch(refusing: Client, change: Any, kind: str, told: str) -> None:
    asked = {"columns": ["close", "open"], "rows": [[1.0, 2.0]], **change}
    assert told in refusing.refused(422, kind, "POST", "/predict/batch", json=asked)["detail"]


def test_no_number_is_no_value(refusing: Client) -> None:
    for text in ("NaN", "Infinity", "1e999"):
        content = f'{{"columns": ["close"], "rows": [[{text}]]}}'
        headers = {"Content-Type": "application/json"}
        refusing.refused(422, "invalid-request", "POST", "/predict/batch", content=content, headers=headers)


def row(n: int, **values: Any) -> PredictionRow:
    kept: dict[str, Any] = {"request_id": f"r{n}", "at": START + timedelta(minutes=n), "slot": "blue"}
    return PredictionRow(**{**kept, "instrument": INSTRUMENT, "model_version": 7, **values})


@pytest.fixture
def recorded(service: LocalService) -> LocalService:
    rows = [row(n, decision_at=START, target_at=START, predicted_return=n / 1e4) for n in range(6)]
    rows += [row(6, slot="green", model_version=8, shadow=True), row(7, status=503, problem="stale-bars")]
    service.store.predictions.record(rows)
    service.store.predictions.settle([Settlement(1, 0.0005)], START)
    return service


def ids(client: Client, query: str) -> list[str]:
    answer = client("GET", f"/predictions/history{query}", token=None)
    assert answer.status_code == 200, answer.text
    return [found["request_id"] for found in answer.json()["predictions"]]


def test_history_is_filtered_and_paged(client: Client, recorded: LocalService) -> None:
    assert ids(client, "") == ["r7", "r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert ids(client, "?shadow=true") == ids(client, "?slot=green") == ids(client, "?version=8") == ["r6"]
    assert ids(client, "?shadow=false&slot=blue&limit=2") == ["r7", "r5"]
    assert ids(client, "?instrument=OTHER") == []
    assert ids(client, "?from=2024-05-01T14:32:00Z&to=2024-05-01T16:34:00%2B02:00") == ["r3", "r2"]
    page = client("GET", "/predictions/history?limit=5").json()
    recorded.store.predictions.record([row(9)])
    more = client("GET", f"/predictions/history?limit=5&cursor={page['next_cursor']}").json()
    assert [p["request_id"] for p in more["predictions"]] == ["r2", "r1", "r0"]
    assert more["next_cursor"] is None
    settled = more["predictions"][-1]
    assert (settled["actual_return"], settled["error"]) == (0.0005, pytest.approx(-0.0005))
    assert settled["at"] == "2024-05-01T14:30:00Z"
    assert (
        client("GET", "/predictions/history?slot=blue&limit=2").json()["predictions"][1]["problem"]
        == "stale-bars"
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "query.limit"),
        ("limit=1001", "query.limit"),
        ("slot=red", "query.slot"),
        ("version=0", "query.version"),
        ("shadow=perhaps", "query.shadow"),
        ("from=yesterday", "query.from"),
        ("from=2024-05-01T14:32:00", "query.from"),
        ("to=1714573920", "query.to"),
        ("instrument=%00", "query.instrument"),
    ],
)
def test_what_is_no_filter(refusing: Client, query: str, field: str) -> None:
    told = refusing.refused(422, "invalid-request", "GET", f"/predictions/history?{query}")
    assert told["errors"][0]["field"] == field


def test_what_is_no_cursor(refusing: Client) -> None:
    for cursor in ("x", "1", "999999999999999999-1"):
        refusing.refused(422, "unusable-cursor", "GET", f"/predictions/history?cursor={cursor}")


def publish(service: LocalService, count: int) -> list[datetime]:
    """One article a day over two months, as the ingest and the sentiment stage leave them."""
    lake = Lake(service.settings.lake_uri)
    times = [datetime(2024, 1, 20, 12, tzinfo=UTC) + timedelta(days=n) for n in range(count)]
    articles = pl.DataFrame(
        {
            "article_id": [f"a{n}" for n in range(count)],
            "published_at": [at - timedelta(minutes=2) for at in times],
            "collected_at": times,
            "available_at": times,
            "precision": "second",
            "source": "wire",
            "url": [None if n % 2 else f"https://news.example/{n}" for n in range(count)],
            "title": [f"<b>Headline</b> {n}" for n in range(count)],
            "body": "text",
            "language": "en",
        },
        schema_overrides={
            name: pl.Datetime("us", "UTC") for name in ARTICLE_SCHEMA.names if name.endswith("_at")
        },
    )
    for month, part in articles.group_by(pl.col("available_at").dt.strftime("%Y-%m")):
        table = part.to_arrow()
        manifest = Manifest("k", "c", len(part), len(part))
        lake.write("bronze/articles", {"instrument": INSTRUMENT, "month": str(month[0])}, table, manifest)
    texts = articles.select("article_id", "available_at", "source", "title", text_hash="article_id")
    scores = pl.DataFrame({"text_hash": texts["text_hash"], "positive": np.linspace(0.0, 0.6, count)})
    scores = scores.with_columns(negative=pl.lit(0.3), neutral=0.7 - pl.col("positive"))
    publish_sentiment(lake, INSTRUMENT, texts, scores, {"scorer": "finbert-1/headline"})
    return times


def test_news_is_newest_first(client: Client, service: LocalService) -> None:
    empty = {"instrument": INSTRUMENT, "scorer": None, "articles": []}
    assert client("GET", "/news/recent", token=None).json() == empty
    times = publish(service, 31)
    body = client("GET", "/news/recent").json()
    assert body["scorer"] == "finbert-1/headline"
    assert len(body["articles"]) == 20
    first, second = body["articles"][:2]
    assert first == {
        "title": "<b>Headline</b> 30",
        "source": "wire",
        "url": "https://news.example/30",
        "published_at": "2024-02-19T11:58:00Z",
        "available_at": "2024-02-19T12:00:00Z",
        "positive": pytest.approx(0.6),
        "negative": 0.3,
        "neutral": pytest.approx(0.1),
        "score": pytest.approx(0.3),
    }
    assert (second["title"], second["url"]) == ("<b>Headline</b> 29", None)
    everything = client("GET", f"/news/recent?limit=200&instrument={INSTRUMENT}").json()["articles"]
    assert [datetime.fromisoformat(a["available_at"]) for a in everything] == times[::-1]
    lake = Lake(service.settings.lake_uri)
    assert recent_news(lake, INSTRUMENT, 3).columns == list(RECENT)
    assert len(recent_news(lake, INSTRUMENT, 3)) == 3


@pytest.mark.parametrize("instrument", ["OTHER", "../x", "..%2F..%2Fetc"])
def test_news_of_what_is_not_served(refusing: Client, instrument: str) -> None:
    assert refusing("GET", f"/news/recent?instrument={instrument}").json()["articles"] == []


def test_news_limits(refusing: Client) -> None:
    for limit in (0, 201):
        told = refusing.refused(422, "invalid-request", "GET", f"/news/recent?limit={limit}")
        assert [e["field"] for e in told["errors"]] == ["query.limit"]


def test_drift_is_not_watched_yet(refusing: Client) -> None:
    refusing.refused(501, "no-monitoring", "GET", "/monitoring/drift/check", token=None)
    refusing.refused(501, "no-monitoring", "POST", "/monitoring/drift/alert")
    refusing.refused(401, "unauthorized", "POST", "/monitoring/drift/alert", token=None)
