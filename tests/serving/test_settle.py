"""Settling, bar by bar, against the labels of the dataset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from marketray.dataset.labels import label_bars
from marketray.lake import Lake
from marketray.serving.rollouts.settle import Settler, known_until
from marketray.serving.store import Store, open_store
from marketray.serving.store.predictions import Prediction, PredictionRow
from marketray.sessions import trading_sessions
from marketray.settings import LabelSettings, Settings, load_settings
from tests.serving.market import INSTRUMENT, simulated_bars, store_bars

LATER = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(home: object) -> Settings:
    return load_settings(None, {"home": str(home), "instrument": INSTRUMENT})


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings.store_uri)


def predicted(
    bars: pl.DataFrame, horizon: int = 30, name: str = "r", **changes: object
) -> list[PredictionRow]:
    """A forecast of 0.1 % at the end of every bar."""
    return [
        PredictionRow(
            **{
                "request_id": f"{name}{i}",
                "at": time + MINUTE,
                "slot": "blue",
                "instrument": INSTRUMENT,
                "model_version": 1,
                "decision_at": time + MINUTE,
                "target_at": time + MINUTE + timedelta(minutes=horizon),
                "last_close": close,
                "predicted_return": 1e-3,
                **changes,
            }
        )
        for i, (time, close) in enumerate(bars.select("time", "close").iter_rows())
    ]


def settled(store: Store) -> list[Prediction]:
    rows, cursor = [], None
    while True:
        page, cursor = store.predictions.history(limit=1_000, cursor=cursor)
        rows += [p for p in page if p.actual_at is not None]
        if cursor is None:
            return sorted(rows, key=lambda p: p.at)


def gappy() -> pl.DataFrame:
    """2,000 minutes over an evening's break; calm minutes have no bar, and once 40 are missing."""
    bars, _ = simulated_bars(2_000)
    rng = np.random.default_rng(7)
    keep = rng.random(len(bars)) > 0.15
    keep[500:540] = False
    return bars.filter(pl.Series(keep))


def test_every_prediction_gets_its_label_as_the_bars_come(settings: Settings, store: Store) -> None:
    bars, labels = gappy(), LabelSettings(extra_horizons_minutes=())
    _, sessions = simulated_bars(1)
    truth = label_bars(bars, sessions, labels)
    stored, live = bars.head(900), bars.slice(900)
    store_bars(Lake(settings.lake_uri), stored)
    store.predictions.record(predicted(bars))
    settler = Settler(settings, store)
    for part in (None, *live.iter_slices(150)):
        if part is not None:
            store.bars.append(INSTRUMENT, part.drop("outlier"))
        while settler.settle():
            pass
        newest = (stored if part is None else part)["time"][-1]
        until = known_until(newest, sessions, 1)
        waiting = [p.target_at for p in store.predictions.due(LATER, 10_000)]
        assert all(t is not None and t > until for t in waiting)
        assert len(waiting) + len(settled(store)) == len(bars)
    found = settled(store)
    expected = truth.head(len(found))
    assert len(found) > 0.95 * len(bars)
    assert [p.actual_return for p in found] == expected["label_return"].to_list()
    assert [p.actual_reason for p in found] == expected["reason"].to_list()
    assert {None, "session_end", "no_bar_in_window"} == {p.actual_reason for p in found}
    errors = [p.error for p in found if p.actual_return is not None]
    assert errors == [1e-3 - r for r in expected["label_return"].drop_nulls()]


@pytest.mark.parametrize("horizon", [1, 15, 60])
def test_the_horizon_is_the_predictions_own(settings: Settings, store: Store, horizon: int) -> None:
    bars, _ = simulated_bars(400)
    store_bars(Lake(settings.lake_uri), bars)
    store.predictions.record(predicted(bars.head(200), horizon))
    assert Settler(settings, store).settle() == 200
    close = bars["close"].to_numpy()
    expected = close[horizon : 200 + horizon] / close[:200] - 1
    np.testing.assert_allclose([p.actual_return for p in settled(store)], expected, rtol=1e-12)


def test_no_label_is_made_up(settings: Settings, store: Store) -> None:
    bars, _ = simulated_bars(300)
    store_bars(Lake(settings.lake_uri), bars.filter(pl.col("time") != bars["time"][10]))
    one = bars.slice(10, 1)
    store.predictions.record(predicted(one, name="no bar"))
    store.predictions.record(predicted(bars.slice(20, 1), name="another", last_close=1.0))
    store.predictions.record(predicted(one, name="gone", instrument="OTHER"))
    store.predictions.record(predicted(bars.slice(299), name="waits"))
    settler = Settler(settings, store)
    assert (settler.settle(), settler.settle()) == (3, 0)
    reasons = {p.request_id[:-1]: (p.actual_return, p.actual_reason) for p in settled(store)}
    assert reasons == {
        "no bar": (None, "no_decision_bar"),
        "another": (None, "other_close"),
        "gone": (None, "not_served"),
    }


def test_without_bars_nothing_is_settled(settings: Settings, store: Store) -> None:
    bars, _ = simulated_bars(10)
    store.predictions.record(predicted(bars))
    assert Settler(settings, store).settle() == 0
    store.bars.append(INSTRUMENT, bars.drop("outlier"))
    assert Settler(settings, store).settle() == 0


def test_labels_at_a_sessions_end_are_known_with_its_last_bar() -> None:
    sessions = trading_sessions(
        "CMES", datetime(2024, 1, 29).date(), datetime(2024, 2, 5).date(), ("17:00-18:00 America/New_York",)
    )
    inside = datetime(2024, 1, 30, 15, 0, tzinfo=UTC)
    assert known_until(inside, sessions, 1) == inside + MINUTE
    last = datetime(2024, 1, 30, 21, 59, tzinfo=UTC)  # 16:59 in New York
    assert known_until(last, sessions, 1) == datetime(2024, 1, 30, 23, 0, tzinfo=UTC)
    friday = datetime(2024, 2, 2, 21, 59, tzinfo=UTC)
    assert known_until(friday, sessions, 1) == datetime(2024, 2, 4, 23, 0, tzinfo=UTC)
