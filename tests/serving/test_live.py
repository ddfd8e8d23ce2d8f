"""The state of the forecasts follows from the lake and the live bars, in whatever order they came."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.errors import StoreError
from marketray.lake import Lake
from marketray.models import load_model
from marketray.serving.answers import Answer, Identity
from marketray.serving.live import LiveModel
from marketray.serving.schemas import Problem
from marketray.serving.store.database import Database
from marketray.serving.store.live_bars import LiveBars
from marketray.settings import load_settings
from tests.serving.market import INSTRUMENT, Market, store_bars

MINUTE = timedelta(minutes=1)
START = 7_000  # bars in the lake; the others arrive


class Bench:
    """One model over a lake of the market's first bars, and the live bars of a store."""

    def __init__(self, home: Path, market: Market, in_lake: int = START, **changes: object) -> None:
        self.market = market
        self.settings = load_settings(None, {"home": str(home), "instrument": INSTRUMENT, **changes})
        self.lake = Lake(self.settings.lake_uri)
        if in_lake:
            store_bars(self.lake, market.bars.head(in_lake))
        database = Database(self.settings.store_uri)
        database.create()
        self.bars = LiveBars(database)
        self.model = self.another()

    def another(self, kind: str = "xgboost") -> LiveModel:
        return LiveModel(Identity("blue", "m", 7), self.market.folders[kind], self.settings)

    def arrive(self, first: int, count: int = 1) -> None:
        """Live bars by their numbers in the market, counted from 0."""
        columns = [name for name in self.market.bars.columns if name != "outlier"]
        self.bars.append(INSTRUMENT, self.market.bars.slice(first, count).select(columns))

    def catch_up(self) -> bool:
        return self.model.catch_up(self.bars)

    def stands_at(self, count: int) -> None:
        """The latest forecast is the one from the batch's features of the market's first `count` bars."""
        found = self.model.latest()
        assert isinstance(found, Answer), found
        batch = self.market.features.row(count - 1, named=True)
        assert found.decision_at == self.model.last_bar_end_at == batch["decision_at"]
        assert found.last_close == self.market.bars["close"][count - 1]
        columns = self.model.forecaster.card.columns
        row = np.array([[np.nan if batch[c] is None else batch[c] for c in columns]], np.float32)
        expected = load_model(self.market.folders["xgboost"]).predict(row)[0]
        assert found.predicted_return == pytest.approx(expected, rel=1e-4, abs=1e-9)

    def refused(self, kind: str, match: str) -> Problem:
        found = self.model.latest()
        assert isinstance(found, Problem), found
        assert (found.status, found.type) == (503, f"urn:marketray:problem:{kind}")
        assert match in found.detail
        return found


@pytest.fixture
def bench(home: Path, market: Market) -> Bench:
    return Bench(home, market)


def test_starts_at_the_lakes_end_and_changes_nothing_without_news(bench: Bench) -> None:
    bench.refused("no-state", "no bars were read yet")
    assert bench.catch_up()
    bench.stands_at(START)
    first = bench.model.latest()
    assert not bench.catch_up()
    assert bench.model.latest() is first


def test_live_bars_are_appended_one_by_one_and_many_at_once(bench: Bench) -> None:
    bench.catch_up()
    bench.arrive(START)  # it opens when the lake's last bar ends
    assert bench.catch_up()
    bench.stands_at(START + 1)
    bench.arrive(START + 1, 3)
    assert bench.catch_up()
    bench.stands_at(START + 4)
    bench.arrive(START + 4, 50)
    assert bench.catch_up()
    bench.stands_at(START + 54)
    assert not bench.catch_up()


def test_a_new_model_starts_where_the_old_one_stands(bench: Bench) -> None:
    bench.arrive(START, 5)
    bench.catch_up()
    bench.stands_at(START + 5)
    bench.model = bench.another()
    bench.catch_up()
    bench.stands_at(START + 5)


def test_a_lake_that_grows_keeps_the_live_bars_after_it(bench: Bench) -> None:
    bench.catch_up()
    bench.arrive(START, 10)
    bench.catch_up()
    store_bars(bench.lake, bench.market.bars.head(START + 4))  # an ingest of a part of them
    bench.catch_up()
    bench.stands_at(START + 10)
    bench.arrive(START + 10)
    bench.catch_up()
    bench.stands_at(START + 11)
    store_bars(bench.lake, bench.market.bars.head(START + 30))  # and of more than there are
    bench.catch_up()
    bench.stands_at(START + 30)
    bench.arrive(START + 20)  # which the lake has already
    assert not bench.catch_up()


def test_a_late_bar_stands_where_it_belongs(bench: Bench) -> None:
    bench.catch_up()
    bench.arrive(START)
    bench.arrive(START + 2)
    bench.catch_up()
    bench.arrive(START + 1)  # of another process, which was slower
    assert bench.catch_up()
    bench.stands_at(START + 3)


def test_a_corrected_earlier_month_is_read_again(home: Path, market: Market) -> None:
    in_lake = int((market.bars["time"].dt.month() == 1).sum()) + 500  # February has just begun
    bench = Bench(home, market, in_lake)
    bench.catch_up()
    corrected = market.bars.head(in_lake).with_columns(
        close=pl.when(pl.col("time").dt.month() == 1).then(pl.col("high")).otherwise(pl.col("close"))
    )
    store_bars(bench.lake, corrected)
    assert bench.catch_up()
    expected = bench.model.from_bars(corrected.drop("outlier"))
    found = bench.model.latest()
    assert isinstance(found, Answer)
    assert isinstance(expected, Answer)
    assert found.body == expected.body


def test_without_a_lake_the_live_bars_are_the_state(home: Path, market: Market) -> None:
    bench = Bench(home, market, in_lake=0)
    bench.catch_up()
    bench.refused("no-state", "bronze/bars holds no bar of TEST_USD")
    assert bench.model.refusals([]) == bench.model.latest()
    bench.arrive(0, 100)
    bench.catch_up()
    bench.refused("no-state", "got 100 bars; required: at least")
    bench.arrive(100, START - 100)
    bench.catch_up()
    bench.stands_at(START)


def test_a_bar_of_the_future_counts_from_its_end_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    end = bench.market.bars["time"][START - 1] + MINUTE
    now = [end]
    monkeypatch.setattr("marketray.serving.live.fixed_clock", lambda settings: now[0])
    bench.catch_up()
    bench.arrive(START, 2)
    assert not bench.catch_up()
    bench.stands_at(START)
    now[0] = end + 1.5 * MINUTE
    assert bench.catch_up()
    bench.stands_at(START + 1)
    now[0] = end + 2 * MINUTE
    assert bench.catch_up()
    bench.stands_at(START + 2)


def test_old_bars_give_no_forecast(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.catch_up()
    end = bench.market.bars["time"][START - 1] + MINUTE
    now = [end + 15 * MINUTE]
    monkeypatch.setattr("marketray.serving.live.fixed_clock", lambda settings: now[0])
    bench.stands_at(START)
    now[0] += timedelta(seconds=6)
    found = bench.refused("stale-bars", f"the last bar ended at {end.isoformat()}, 15.1 minutes ago")
    assert found.required == "at most 15 minutes (serving.max_bar_age_minutes)"
    bench.arrive(START)
    bench.catch_up()
    bench.stands_at(START + 1)


def test_what_cannot_be_appended_ends_where_a_new_start_would(home: Path, market: Market) -> None:
    """A bar outside the sessions is no decision; the next one inside counts again."""
    times = market.bars["time"].to_list()
    gap = next(i for i in range(7_999, 0, -1) if times[i] - times[i - 1] > MINUTE)  # the daily break
    bench = Bench(home, market, gap)
    bench.catch_up()
    bench.stands_at(gap)
    inside = market.bars.drop("outlier").tail(-(gap - 1)).head(1)
    bench.bars.append(INSTRUMENT, inside.with_columns(time=pl.col("time") + MINUTE))
    bench.catch_up()
    bench.refused("no-state", "required: inside the trading sessions of CMES")
    bench.arrive(gap)
    assert bench.catch_up()
    started = bench.another()
    started.catch_up(bench.bars)
    found, expected = bench.model.latest(), started.latest()
    assert isinstance(found, Answer)
    assert isinstance(expected, Answer)
    assert (found.decision_at, found.body) == (times[gap] + MINUTE, expected.body)


def test_an_unreadable_lake_leaves_what_is_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.catch_up()
    store_bars(bench.lake, bench.market.bars.head(START + 5))
    broken = Path(bench.settings.lake_uri, "bronze/bars")
    files = [f for f in broken.rglob("*.parquet") if "2024-02" in str(f)]
    kept = {f: f.read_bytes() for f in files}
    for f in files:
        f.write_bytes(b"no parquet")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not bench.catch_up()
    assert len(caplog.messages) == 1  # said once, not at every look
    bench.stands_at(START)
    bench.model = bench.another()
    bench.catch_up()
    bench.refused("no-state", "…/part.parquet: cannot be read")
    assert str(files[0]) in caplog.text  # the log says which
    for f, content in kept.items():
        f.write_bytes(content)
    assert bench.catch_up()
    bench.stands_at(START + 5)


def test_an_unreachable_store_leaves_what_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.catch_up()

    def away(*_: object, **__: object) -> int:
        raise StoreError("away")

    monkeypatch.setattr(bench.bars, "count", away)
    with pytest.raises(StoreError, match="away"):
        bench.catch_up()
    bench.stands_at(START)


def test_a_model_without_a_number_is_a_problem_and_takes_bars_all_the_same(bench: Bench) -> None:
    bench.catch_up()

    class Silent:
        columns = bench.model.forecaster.model.columns

        def predict(self, rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return np.full(len(rows), np.nan)

    bench.model.forecaster.model = Silent()  # type: ignore[assignment]
    bench.arrive(START)
    bench.catch_up()
    bench.refused("no-forecast", "the model answered nan")
    assert bench.model.last_bar_end_at == bench.market.bars["time"][START] + MINUTE
    bar = bench.market.bars.row(START + 1, named=True)
    late = bench.market.bars.row(START - 1, named=True)
    taken, refused = bench.model.refusals([bar, late])  # type: ignore[misc]
    assert taken is None
    assert refused is not None
    assert refused.reason == "late"
