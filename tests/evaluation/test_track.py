"""Figures of a position's record against NumPy, statsmodels, arch and loops."""

from __future__ import annotations

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.evaluation.track import MIN_SESSIONS, Track, figures, sharpe_interval


def make_track(
    net: np.ndarray, dates: np.ndarray, position: np.ndarray | None = None, trade: np.ndarray | None = None
) -> Track:
    """A record without costs."""
    n = len(net)
    held = np.ones(n) if position is None else position
    number = np.zeros(n, dtype=np.int64) if trade is None else trade
    return Track(dates, held, number, net, np.abs(held), np.zeros(n))


def test_the_sharpe_ratio_is_numpys_and_its_variance_statsmodels() -> None:
    from statsmodels.stats.sandwich_covariance import S_hac_simple

    rng = np.random.default_rng(0)
    x = rng.standard_t(5, 300) * 0.01 + 0.001
    x[1:] += 0.3 * x[:-1]
    sharpe, low, high = sharpe_interval(x, 252)
    assert sharpe == pytest.approx(x.mean() / x.std(ddof=1) * np.sqrt(252), rel=1e-12)
    # Lo (2002): both moments' long-run covariance, and the gradient of μ/σ
    deviation = x.std(ddof=1)
    moments = np.column_stack([x - x.mean(), (x - x.mean()) ** 2 - np.mean((x - x.mean()) ** 2)])
    covariance = S_hac_simple(moments, nlags=int(4 * 3 ** (2 / 9))) / len(x)
    gradient = np.array([1 / deviation, -x.mean() / (2 * deviation**3)])
    half = 1.959963984540054 * np.sqrt(gradient @ covariance @ gradient / len(x) * 252)
    assert (low, high) == pytest.approx((sharpe - half, sharpe + half), rel=1e-9)


def test_the_interval_is_near_los_closed_form_and_the_stationary_bootstrap() -> None:
    from arch.bootstrap import StationaryBootstrap

    x = np.random.default_rng(1).normal(0.001, 0.01, 1000)
    _, low, high = sharpe_interval(x, 252)
    daily = x.mean() / x.std(ddof=1)
    lo = 2 * 1.96 * np.sqrt((1 + daily**2 / 2) / 1000 * 252)
    assert high - low == pytest.approx(lo, rel=0.12)

    def ratio(sample: np.ndarray) -> float:
        return float(sample.mean() / sample.std(ddof=1) * np.sqrt(252))

    drawn = StationaryBootstrap(5, x, seed=2).conf_int(ratio, reps=400, method="percentile")
    assert low == pytest.approx(drawn[0, 0], abs=0.25)
    assert high == pytest.approx(drawn[1, 0], abs=0.25)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 0.05 * np.sqrt(252)
    inside = 0
    for _ in range(600):
        x = rng.standard_t(6, 250) / np.sqrt(1.5) * 0.01 + 0.0005
        _, low, high = sharpe_interval(x, 252)
        inside += low <= truth <= high
    assert 0.92 <= inside / 600 <= 0.975


@pytest.mark.parametrize("x", [[0.1], [0.1, 0.1, 0.1], [0.1, np.nan, 0.2], []])
def test_a_ratio_without_variation_is_refused(x: list[float]) -> None:
    with pytest.raises(
        DataError, match=rf"got {len(x)} returns; required: two or more finite ones that vary"
    ):
        sharpe_interval(x, 252)


def test_sessions_compound_and_bars_add_up_and_drawdown_is_a_loops() -> None:
    rng = np.random.default_rng(4)
    dates = np.repeat(np.arange(19_000, 19_030), rng.integers(1, 9, 30))
    net = rng.normal(0, 0.01, len(dates))
    found = figures(make_track(net, dates), 252)
    capital, peak, fall, ends = 1.0, 1.0, 0.0, []
    for day in np.unique(dates):
        opening = capital
        for gain in net[dates == day]:
            capital += opening * gain
            peak = max(peak, capital)
            fall = max(fall, 1 - capital / peak)
        ends.append(capital / opening - 1)
    assert found["return_pct"] == pytest.approx(100 * (capital - 1), rel=1e-9)
    assert found["annual_return_pct"] == pytest.approx(100 * (capital ** (252 / 30) - 1), rel=1e-9)
    assert found["max_drawdown_pct"] == pytest.approx(100 * fall, rel=1e-9)
    assert found["sharpe"] == pytest.approx(np.mean(ends) / np.std(ends, ddof=1) * np.sqrt(252), rel=1e-9)
    assert found["sharpe_low"] < found["sharpe"] < found["sharpe_high"]
    assert (found["sessions"], found["reason"]) == (30, None)


def test_win_rate_counts_trades_by_their_net_gain() -> None:
    dates = np.full(7, 19_000)
    position = np.array([1.0, 1.0, 0.0, -0.5, -0.5, 1.0, 0.0])
    trade = np.array([0, 0, 1, 2, 2, 3, 4])
    net = np.array([0.01, -0.02, 0.0, 0.004, -0.001, 0.002, 0.0])
    found = figures(make_track(net, dates, position, trade), 252)
    assert found["trades"] == 3
    assert found["win_rate"] == pytest.approx(2 / 3)
    assert found["exposure"] == pytest.approx(4 / 7)
    assert found["turnover"] == 4
    assert found["break_even_cost_bps"] == pytest.approx(1e4 * net.sum() / 4)


def test_a_ruined_account_stays_ruined() -> None:
    dates = np.arange(19_000, 19_003)
    found = figures(make_track(np.array([0.1, -1.5, 5.0]), dates), 252)
    assert (found["return_pct"], found["max_drawdown_pct"]) == (-100, 100)


def test_what_cannot_be_known_is_none_with_the_reason() -> None:
    few = figures(make_track(np.array([0.01, -0.01]), np.array([19_000, 19_001])), 252)
    assert (few["sharpe"], few["annual_return_pct"]) == (None, None)
    assert few["reason"] == f"2 sessions; annual figures need {MIN_SESSIONS}"
    same = figures(make_track(np.full(30, 0.01), np.arange(19_000, 19_030)), 252)
    assert (same["sharpe"], same["reason"]) == (None, "every session earned the same")
    idle = figures(make_track(np.zeros(30), np.arange(19_000, 19_030), np.zeros(30)), 252)
    assert (idle["return_pct"], idle["trades"], idle["exposure"], idle["max_drawdown_pct"]) == (0, 0, 0, 0)
    assert (idle["win_rate"], idle["break_even_cost_bps"], idle["reason"]) == (
        None,
        None,
        "there was no trade",
    )


def test_records_that_follow_each_other_are_one_with_trades_of_their_own() -> None:
    first = make_track(np.array([0.01, 0.02]), np.array([19_000, 19_000]))
    second = make_track(np.array([-0.03]), np.array([19_001]))
    joined = Track.joined([first, second])
    assert figures(joined, 252)["trades"] == 2
    assert figures(joined, 252)["win_rate"] == 0.5
    np.testing.assert_allclose(joined.growth, [1.01, 1.03, 1.03 * 0.97])
    assert figures(joined.take(slice(2, 3)), 252)["return_pct"] == pytest.approx(-3)
