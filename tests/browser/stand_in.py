"""A service whose every answer a test sets, over HTTP in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from marketray.serving.http.routes import page

MINUTE = timedelta(minutes=1)


def iso(at: datetime) -> str:
    """As the service writes it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def problem(status: int, title: str, detail: str, hint: str | None = None) -> tuple[int, dict[str, Any]]:
    """A problem as an answer of `StandIn`."""
    return status, {"type": "urn:marketray:problem:x", "title": title, "status": status, "detail": detail,
                    "hint": hint}  # fmt: skip


class StandIn:
    """Answers `answers[path]`, (status, JSON), and tells subscribers what is published."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.joined: list[str | None] = []
        self._events: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.add_api_route("/", self._page)
        page.add(self.app)
        self.app.add_api_websocket_route("/ws/market-stream", self._stream)
        self.app.add_api_route("/{path:path}", self._answer, methods=["GET", "POST"])

    def publish(self, kind: str, data: dict[str, Any]) -> int:
        """Tell it to subscribers; the event's number."""
        number = len(self._events) + 1
        self._events.append({"id": number, "kind": kind, "at": iso(datetime.now(UTC)), "data": data})
        return number

    async def _page(self, request: Request) -> Response:
        return page.page(request)

    async def _answer(self, path: str, request: Request) -> Response:
        self.asked.append((path, dict(request.query_params)))
        status, content = self.answers.get(path, problem(404, "Not Found", f"no {path}"))
        return JSONResponse(content, status)

    async def _stream(self, websocket: WebSocket) -> None:
        await websocket.accept()
        given = websocket.query_params.get("last_id")
        self.joined.append(given)
        sent = int(given) if given is not None else len(self._events)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                for event in self._events[sent:]:
                    await websocket.send_json(event)
                sent = max(sent, len(self._events))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(websocket.receive(), 0.02)


@contextlib.contextmanager
def running(app: Any, port: int = 0) -> Iterator[str]:
    """Serves `app` until the block ends; its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def example(now: datetime, change: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Answers of a service with two models, three hours of bars and some news; seeded."""
    rng = np.random.default_rng(5)
    end = now.replace(second=0, microsecond=0) - MINUTE
    closes = 5_020 * np.exp(np.cumsum(rng.normal(0, 2.2e-4, 240)))
    times = [end - (240 - i) * MINUTE for i in range(240)]
    bars = [{"end_at": iso(t + MINUTE), "close": c} for t, c in zip(times, closes, strict=True)]
    answers: dict[str, tuple[int, Any]] = {
        "model-info": (200, model_info(end)),
        "predict": (200, forecast(end, float(closes[-1]))),
        "bars/recent": (200, {"instrument": "SPX500_USD", "bars": bars}),
        "predictions/decisions": (200, {"decisions": decisions(times, closes, now, rng)}),
        "news/recent": (200, {"articles": articles(end, rng)}),
        "traffic": (200, traffic(now)),
        "monitoring/drift/check": problem(501, "Not part of this service yet", "drift is not watched"),
    }
    if change is not None:
        change(answers)
    return answers


def forecast(end: datetime, close: float, **changes: Any) -> dict[str, Any]:
    """As POST /predict answers."""
    r = 0.000_142
    centre = close * (1 + r)
    widths = {0.5: 0.0011, 0.8: 0.0021, 0.95: 0.0034}
    intervals = [{"level": k, "low": centre * (1 - w), "high": centre * (1 + w)} for k, w in widths.items()]
    return {
        "timestamp": iso(end), "target_at": iso(end + 30 * MINUTE), "instrument": "SPX500_USD",
        "horizon_minutes": 30, "last_close": close, "prediction": centre, "predicted_return": r,
        "direction": "up", "confidence": 0.53, "probability_up": 0.53, "interval": intervals[1],
        "intervals": intervals, "features_used": 131, "model_version": 7, "model_type": "xgboost",
        "slot": "blue", "test_rmse_pct": 0.148, "feature_catalog": "0f3a9c51d2be77aa",
        "evidence": {"verdict": "bootstrap", "r2_oos": -0.0002, "p_value": 0.41}, "request_id": "r",
        "latency_ms": 1.3, **changes,
    }  # fmt: skip


def model_info(end: datetime, **changes: Any) -> dict[str, Any]:
    """As GET /model-info answers."""
    return {
        "model_name": "marketray", "model_version": 7, "model_type": "xgboost", "task": "regression",
        "instrument": "SPX500_USD", "horizon_minutes": 30, "bar_interval_minutes": 1, "slot": "blue",
        "features": [f"f{i}" for i in range(131)], "inputs": ["volume"], "lookback_bars": 2_880,
        "feature_catalog": "0f3a9c51d2be77aa", "scorer": "finbert-mini-0f3a/headline", "test_rmse_pct": 0.148,
        "evidence": {"verdict": "bootstrap", "r2_oos": -0.0002, "p_value": 0.41},
        "uncertainty": {"method": "split-conformal", "levels": [0.5, 0.8, 0.95],
                        "as_of": iso(end - 9_000 * MINUTE)},
        "last_bar_end_at": iso(end), **changes,
    }  # fmt: skip


def decisions(times: list[datetime], closes: Any, now: datetime, rng: Any) -> list[dict[str, Any]]:
    """Every second minute's forecast, newest first, and what came true of those that have ended."""
    rows = []
    for i in range(len(times) - 1, 20, -2):
        decided = times[i] + MINUTE
        came = float(closes[i + 30] / closes[i] - 1) if i + 30 < len(times) else None
        for slot, version in (("blue", 7), ("green", 8)):
            if slot == "green" and i < 150:
                continue
            r = float(rng.normal(0, 1.2e-4))
            rows.append({
                "decision_at": iso(decided), "target_at": iso(decided + 30 * MINUTE), "slot": slot,
                "model_version": version, "shadow": slot == "green", "last_close": float(closes[i]),
                "predicted_return": r, "probability_up": 0.5 + math.copysign(0.02, r),
                "direction": "up" if r > 0 else "down", "actual_return": came, "actual_reason": None,
            })  # fmt: skip
    return rows


def articles(end: datetime, rng: Any) -> list[dict[str, Any]]:
    """Scored headlines, newest first."""
    titles = [
        "Fed officials see inflation easing toward target, minutes show",
        "Chipmakers slide as export rules tighten",
        "S&P 500 futures little changed before jobs report",
        "Retail sales beat expectations for a third month",
        "Bank profits fall short as loan losses rise",
        "Oil steadies after four-day decline",
        "Treasury yields climb to their highest in six weeks as traders pare bets on early cuts",
        "Consumer confidence improves in November",
    ]
    found = []
    for i in range(24):
        at = end - int(9 * i + rng.integers(0, 8)) * MINUTE
        score = float(np.clip(rng.normal(0.05, 0.5), -0.97, 0.97))
        found.append({
            "title": titles[i % 8], "source": ["Reuters", "AP", "MarketWire"][i % 3],
            "url": f"https://news.example/{i}", "published_at": iso(at - MINUTE), "available_at": iso(at),
            "positive": max(score, 0.0), "negative": max(-score, 0.0), "neutral": 1 - abs(score),
            "score": score,
        })  # fmt: skip
    return found


def traffic(now: datetime, **changes: Any) -> dict[str, Any]:
    """As GET /traffic answers."""
    models = {"blue": 7, "green": 8}
    shares = [0, 0, 1, 5, 10]
    actions = ["declare", "load", "rollout", "rollout", "rollout"]
    history = [
        {"seq": i + 1, "at": iso(now - (60 - 11 * i) * MINUTE), "who": "cli anna" if i < 2 else "control",
         "action": actions[i], "reason": "" if i < 2 else f"step {i - 1} of 5", "models": models,
         "weights": {"blue": 100.0 - share, "green": float(share)}, "shadow": "green" if i > 1 else None}
        for i, share in enumerate(shares)
    ][::-1]  # fmt: skip
    rollout = {
        "id": 3, "phase": "step", "slot": "green", "version": 8, "step": 2,
        "steps": [1.0, 5.0, 10.0, 50.0, 100.0], "started_at": iso(now - 40 * MINUTE),
        "entered_at": iso(now - 16 * MINUTE), "ended_at": None, "who": "cli anna",
        "reason": "waits for 100 requests, 64 so far",
        "decisions": [
            {"at": iso(now - ago * MINUTE), "kind": "advance", "step": step, "reason": f"{n} requests"}
            for ago, step, n in ((16, 2, 212), (27, 1, 130))
        ],
    }  # fmt: skip
    return {
        "weights": {"blue": 90.0, "green": 10.0}, "models": models, "answering": models, "unwell": {},
        "shadow": "green", "sticky": "client", "seq": 5, "at": history[0]["at"], "who": "control",
        "history": history, "rollout": rollout, **changes,
    }  # fmt: skip
