"""Volume and liquidity features against TA-Lib, NumPy on every window, and bars without trades."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import talib

from marketray.features.kernel import compute
from tests.features.market import sessions_of
from tests.features.quoted import (
    ASK,
    ASKS,
    BARS,
    BID,
    BIDS,
    CATALOG,
    RETURN,
    C,
    H,
    L,
    V,
    assert_formula,
    lagged,
    over,
    still_row,
)

SIGNED = np.sign(C - lagged(C)) * V
LOG_VOLUME = np.log(np.where(V > 0, V, np.nan))
SPREAD = (ASK - BID) / ((ASK + BID) / 2)


def mean(values: np.ndarray, n: int) -> np.ndarray:
    return over(n, values)[0].mean(axis=1)


def zscore(values: np.ndarray, n: int) -> np.ndarray:
    return (values - mean(values, n)) / over(n, values)[0].std(axis=1, ddof=1)


def vwap_distance(n: int) -> np.ndarray:
    value, volume = over(n, V * (H + L + C) / 3, V)
    return C / (value.sum(axis=1) / volume.sum(axis=1)) - 1


def balance_slope() -> np.ndarray:
    balance = np.cumsum(np.nan_to_num(SIGNED))
    (windows,) = over(20, balance)
    steps = np.arange(20)
    slopes = [np.polynomial.polynomial.polyfit(steps, w, 1)[1] for w in windows[19:]]
    return np.concatenate([np.full(19, np.nan), slopes]) / mean(V, 20)


def correlation() -> np.ndarray:
    pairs = zip(*over(20, V, RETURN), strict=True)
    return np.array([np.corrcoef(v, r)[0, 1] if np.isfinite(r).all() else np.nan for v, r in pairs])


def amihud(n: int) -> np.ndarray:
    (windows,) = over(n, np.abs(RETURN) / (C * np.where(V > 0, V, np.nan)))
    count = np.isfinite(windows).sum(axis=1)
    return np.nansum(windows, axis=1) / np.where(count > 0, count, np.nan)


def impact(n: int) -> np.ndarray:
    """Slope without intercept by least squares on each window."""
    change, flow = over(n, RETURN, SIGNED)
    solved = [np.linalg.lstsq(f[:, None], r)[0][0] for r, f in zip(change[n:], flow[n:], strict=True)]
    return np.concatenate([np.full(n, np.nan), solved])


def roll() -> np.ndarray:
    pairs = zip(*over(20, RETURN, lagged(RETURN)), strict=True)
    covariance = np.array([np.cov(a, b, ddof=0)[0, 1] for a, b in pairs])
    return 2 * np.sqrt(np.maximum(-covariance, 0))


def corwin_schultz() -> np.ndarray:
    """The paper's equations 14 and 18, bar by bar."""
    found = [np.nan]
    for i in range(1, len(C)):
        beta = np.log(H[i] / L[i]) ** 2 + np.log(H[i - 1] / L[i - 1]) ** 2
        gamma = np.log(max(H[i], H[i - 1]) / min(L[i], L[i - 1])) ** 2
        k = 3 - 2 * np.sqrt(2)
        alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / k - np.sqrt(gamma / k)
        found.append(max(2 * (np.exp(alpha) - 1) / (1 + np.exp(alpha)), 0.0))
    return np.array(found)


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "volume_ratio_50": lambda: V / talib.SMA(V, timeperiod=50),
    "volume_ratio_5_20": lambda: talib.SMA(V, timeperiod=5) / talib.SMA(V, timeperiod=20),
    "abnormal_volume": lambda: (zscore(V, 20) > 2).astype(float),
    "volume_change_1": lambda: LOG_VOLUME - lagged(LOG_VOLUME),
    "volume_acceleration": lambda: LOG_VOLUME - 2 * lagged(LOG_VOLUME) + lagged(LOG_VOLUME, 2),
    "vwap_distance_60": lambda: vwap_distance(60),
    "signed_volume_share_20": lambda: mean(SIGNED, 20) / mean(V, 20),
    "obv_slope_20": balance_slope,
    "mfi_14": lambda: talib.MFI(H, L, C, V, timeperiod=14),
    "volume_return_correlation_20": correlation,
    "amihud_illiquidity_20": lambda: amihud(20) / amihud(240),
    "price_impact_20": lambda: impact(20) / impact(240),
    "roll_spread_20": roll,
    "corwin_schultz_spread": corwin_schultz,
    "spread_mean_20": lambda: mean(SPREAD, 20),
    "spread_zscore_60": lambda: zscore(SPREAD, 60),
    "quote_position": lambda: (C - (ASK + BID) / 2) / ((ASK - BID) / 2),
    "depth_imbalance": lambda: 2 * BIDS / (BIDS + ASKS) - 1,
    "depth_ratio_20": lambda: (BIDS + ASKS) / talib.SMA(BIDS + ASKS, timeperiod=20),
    "microprice_distance": lambda: (BID + (ASK - BID) * BIDS / (BIDS + ASKS)) / C - 1,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def test_still_bars_with_equal_volume_and_no_depth() -> None:
    row = still_row()
    ones = ("volume_ratio_50", "volume_ratio_5_20")
    absent = (
        "amihud_illiquidity_20",
        "price_impact_20",
        "quote_position",
        "depth_imbalance",
        "depth_ratio_20",
        "microprice_distance",
    )
    assert [row[name] for name in ones] == [1.0, 1.0]
    assert row["mfi_14"] == 50.0
    assert [row[name] for name in absent] == [None] * 6
    others = set(FORMULAS) - {*ones, *absent, "mfi_14", "vwap_distance_60"}
    assert {name: row[name] for name in others} == dict.fromkeys(others, 0.0)
    assert row["vwap_distance_60"] == pytest.approx(0.0, abs=1e-15)


def test_where_nothing_is_traded_a_share_of_volume_is_null() -> None:
    bars = BARS.head(400).with_columns(volume=pl.lit(0.0))
    row = compute(CATALOG, bars, sessions_of(bars["time"])).row(-1, named=True)
    neutral = {"mfi_14": 50.0, "abnormal_volume": 0.0, "volume_return_correlation_20": 0.0}
    assert {name: row[name] for name in neutral} == neutral
    needing = [f.name for f in CATALOG.features if f.inputs == ("volume",) and f.lookback <= 400]
    shares = set(needing) - set(neutral) - {"volume_zscore_20", "volume_zscore_60"}
    assert {row[name] for name in shares} == {None}


def test_bars_without_trades_do_not_count_as_liquid() -> None:
    traded = BARS.head(600)
    thinned = traded.with_columns(volume=pl.when(pl.int_range(600) % 7 == 3).then(0.0).otherwise("volume"))
    got = compute(CATALOG, thinned, sessions_of(thinned["time"]))["amihud_illiquidity_20"][-1]
    volume, size = thinned["volume"].to_numpy(), np.abs(RETURN[:600])
    ratio = size[volume > 0] / (C[:600] * volume)[volume > 0]
    counts = [int((volume[-n:] > 0).sum()) for n in (20, 240)]
    assert counts[0] < 20
    assert got == pytest.approx(ratio[-counts[0] :].mean() / ratio[-counts[1] :].mean(), rel=1e-12)
