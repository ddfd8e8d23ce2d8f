"""The planted effect: the oracle is exact, unbiased, and explains the share asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.errors import SettingsError
from marketray.ingest.sources.simulator import planted_size
from marketray.ingest.sources.simulator_effects import (
    HORIZON_MINUTES,
    Moments,
    drift,
    plant,
    remaining_drift,
    session_moments,
)
from marketray.settings import MarketSettings, SimulatorSource
from tests.ingest.simulated import CMES, MINUTE_US, XNYS, Simulated, collect, slope

ALL = SimulatorSource(bars=1_500_000, effect="all", seed=3)


@pytest.fixture(scope="module")
def data() -> Simulated:
    return collect(ALL, CMES)


@pytest.mark.parametrize(("column", "planted"), [("market", 0.05), ("news", 0.02), ("all", 0.07)])
def test_oracle_explains_the_planted_share(data: Simulated, column: str, planted: float) -> None:
    rows, label = data.labels()
    forecast = data.oracle[column].to_numpy()[rows]
    r2 = 1 - np.sum((label - forecast) ** 2) / np.sum(label**2)
    assert r2 == pytest.approx(planted, abs=0.007)  # two standard errors, 50,000 independent labels
    assert np.mean(forecast**2) / np.mean(label**2) == pytest.approx(planted, rel=0.05)


@pytest.mark.parametrize("column", ["market", "news", "all"])
def test_oracle_is_unbiased(data: Simulated, column: str) -> None:
    rows, label = data.labels()
    estimate, error = slope(data.oracle[column].to_numpy()[rows], label, data.session[rows])
    assert error < 0.05
    assert estimate == pytest.approx(1.0, abs=3 * error)


def test_oracles_of_market_and_news_add_up(data: Simulated) -> None:
    oracle = data.oracle
    assert oracle["all"].equals(oracle["market"] + oracle["news"])
    assert abs(np.corrcoef(oracle["market"], oracle["news"])[0, 1]) < 0.02


@pytest.mark.parametrize("market", [CMES, XNYS, MarketSettings(calendar="24/7", breaks=())])
def test_market_oracle_is_the_weighted_sum_of_bodies(market: MarketSettings) -> None:
    """Brute force from the bars alone: p w sum_i min(30 - i, m) (C - O) / O of the minute t - i."""
    source = SimulatorSource(bars=12_000, effect="market", seed=9, missing_share=0.1)
    data = collect(source, market)
    weight = 0.9 * planted_size(source, market).flow
    opens, closes, session = data.sessions.open_us, data.sessions.close_us, data.session
    body = (data.bars["close"] / data.bars["open"] - 1).to_list()
    by_minute = dict(zip(data.time_us.tolist(), body, strict=True))
    rng = np.random.default_rng(0)
    last = np.flatnonzero(np.diff(session) != 0)
    rows = np.unique(np.concatenate([rng.integers(0, 12_000, 500), last[:20], last[:20] - 7, last[:20] + 3]))
    for row in rows:
        t = int(data.time_us[row])
        left = int(closes[session[row]] - t) // MINUTE_US - 1
        expected = 0.0
        for i in range(30):
            if t - i * MINUTE_US >= opens[session[row]]:
                expected += weight * min(30 - i, left) * by_minute.get(t - i * MINUTE_US, 0.0)
        assert data.oracle["market"][int(row)] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    at_close = data.time_us == closes[session] - MINUTE_US
    assert at_close.sum() > 5
    assert data.oracle["market"].to_numpy()[at_close] == pytest.approx(0.0, abs=1e-15)  # nothing is left


def test_drift_between_bars_is_the_sum_of_thirty_bodies() -> None:
    source = SimulatorSource(bars=10_000, effect="market", seed=2, missing_share=0.0)
    data = collect(source, XNYS)
    weight = planted_size(source, XNYS).flow
    between = (data.bars["open"] / data.bars["close"].shift(1) - 1).to_numpy()
    body = (data.bars["close"] / data.bars["open"] - 1).to_numpy()
    for row in (40, 200, 389, 430, 1_000, 9_999):
        first = max(row - 30, int(np.searchsorted(data.session, data.session[row])))
        assert between[row] == pytest.approx(weight * body[first:row].sum(), abs=1e-12)


def test_without_effects_nothing_is_predictable() -> None:
    data = collect(ALL.model_copy(update={"effect": "none", "bars": 1_000_000}), CMES)
    for column in ("market", "news", "all"):
        assert (data.oracle[column] == 0.0).all()
    rows, label = data.labels()
    body = (data.bars["close"] / data.bars["open"] - 1).to_numpy()
    would_be = np.convolve(body, np.arange(30.0, 0, -1))[: len(body)][rows]
    estimate, error = slope(would_be, label, data.session[rows])
    assert abs(estimate) < 3 * error
    planted = planted_size(ALL, CMES).flow
    assert planted > 8 * error  # the same test would have found the effect


def test_effects_do_not_change_order_flow_or_articles() -> None:
    short = [collect(ALL.model_copy(update={"effect": e, "bars": 20_000}), CMES) for e in ("none", "all")]
    assert short[0].articles.equals(short[1].articles)
    x = [(d.bars["close"] - d.bars["open"]) / (d.bars["high"] - d.bars["low"]) for d in short]
    np.testing.assert_allclose(x[0], x[1], atol=1e-7)
    assert not short[0].bars["close"].equals(short[1].bars["close"])


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=50),
    st.lists(st.floats(-1, 1), min_size=1, max_size=50),
    st.floats(0.1, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_remaining_drift_is_the_drift_still_to_come(one: list[float], two: list[float], p: float) -> None:
    """Silencing all later impulses, the drift of the next 30 minutes of the session is what remains."""
    padding = [0.0] * HORIZON_MINUTES
    impulse = np.array(padding + one + padding + two)
    lengths = (len(one), len(two))
    left = np.concatenate([n - 1 - np.arange(-HORIZON_MINUTES, n) for n in lengths])
    remaining = remaining_drift(impulse, left, p)
    for t in [*range(30, 30 + lengths[0]), *range(len(impulse) - lengths[1], len(impulse))]:
        silent = np.where(np.arange(len(impulse)) <= t, impulse, 0.0)
        ahead = drift(silent)[t + 1 : t + 1 + min(30, int(left[t]))]
        assert remaining[t] == pytest.approx(p * ahead.sum(), abs=1e-9)


def test_moments_agree_with_a_simulation_of_one_session() -> None:
    """Flat volatility, full presence: 9455 w^2 against 30 + 870 w + 8555 w^2 by hand."""
    n = 200
    moments = session_moments(np.ones(n), np.zeros(n), 0.0, present=1.0)
    settled = n - 30 - 29  # decisions with all 30 impulses in the session
    opening = sum((30 - i) ** 2 for t in range(29) for i in range(t + 1))
    assert moments.known == pytest.approx(9455 * settled + opening)
    assert moments.flow0 == 30 * (n - 30)
    assert moments.flow1 == 870 * (n - 30)
    assert moments.flow2 == 8555 * (n - 30)


def test_plant_solves_for_the_shares() -> None:
    moments = Moments(known=9455, flow2=8555, flow1=870, flow0=30, news_known=10.0, news_unknown=9.0)
    size = plant(moments, 0.05, 0.02)
    market = 9455 * size.flow**2
    rest = 8555 * size.flow**2 + 870 * size.flow + 30
    total = market + rest + 19 * size.news**2
    assert market / total == pytest.approx(0.05)
    assert 10 * size.news**2 / total == pytest.approx(0.02)


@pytest.mark.parametrize(("market_r2", "news_r2"), [(0.52, 0.0), (0.0, 0.52), (0.4, 0.2)])
def test_plant_refuses_what_cannot_be(market_r2: float, news_r2: float) -> None:
    moments = Moments(known=9455, flow2=8555, flow1=870, flow0=30, news_known=10.0, news_unknown=9.0)
    with pytest.raises(SettingsError, match=r"required: news_r2 <= 0.505 and market_r2 <= 0\.\d+ \*"):
        plant(moments, market_r2, news_r2)
