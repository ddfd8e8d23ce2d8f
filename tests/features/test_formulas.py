"""Feature values against TA-Lib, pandas and NumPy formulas on seeded bars, warm-up left out."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib

from marketray.features.catalog import build_catalog
from marketray.features.groups.news import news
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of

ELSEWHERE = (
    "calendar",
    "candles",
    "gaps",
    "microstructure",
    "momentum",
    "regime",
    "trend",
    "volatility",
    "volume",
)
"""Groups whose formulas are in test_formulas_<group>."""

BARS = make_bars(4_000, seed=11, flat=False)
FRAME = BARS.to_pandas()
OPEN, H, L, C, V = (BARS[n].to_numpy().copy() for n in ("open", "high", "low", "close", "volume"))
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
ROWS = compute(CATALOG, BARS, sessions_of(BARS["time"]))


def bands(kind: int) -> np.ndarray:
    return talib.BBANDS(C, timeperiod=20, nbdevup=2.0, nbdevdn=2.0, matype=0)[kind]


def macd(kind: int) -> np.ndarray:
    return talib.MACD(C, fastperiod=12, slowperiod=26, signalperiod=9)[kind] / C


def stochastic(kind: int) -> np.ndarray:
    return talib.STOCHF(H, L, C, fastk_period=14, fastd_period=3, fastd_matype=0)[kind]


TALIB: dict[str, Callable[[], np.ndarray]] = {
    "rsi_14": lambda: talib.RSI(C, timeperiod=14),
    "macd": lambda: macd(0),
    "macd_signal": lambda: macd(1),
    "macd_histogram": lambda: macd(2),
    "bollinger_width_20": lambda: (bands(0) - bands(2)) / bands(1),
    "bollinger_position_20": lambda: (C - bands(2)) / (bands(0) - bands(2)),
    "stochastic_k_14": lambda: stochastic(0),
    "stochastic_d_14": lambda: stochastic(1),
    "atr_14": lambda: talib.ATR(H, L, C, timeperiod=14) / C,
    "adx_14": lambda: talib.ADX(H, L, C, timeperiod=14),
    "di_difference_14": lambda: (
        talib.PLUS_DI(H, L, C, timeperiod=14) - talib.MINUS_DI(H, L, C, timeperiod=14)
    ),
    **{f"sma_distance_{n}": lambda n=n: C / talib.SMA(C, timeperiod=n) - 1 for n in (10, 20, 50)},
    **{f"ema_distance_{n}": lambda n=n: C / talib.EMA(C, timeperiod=n) - 1 for n in (10, 20, 50)},
}


@pytest.mark.parametrize("name", TALIB)
def test_talib(name: str) -> None:
    check(name, TALIB[name](), CATALOG[name].lookback + 10, relative=1e-7)


def rolling(values: np.ndarray, n: int) -> pd.core.window.rolling.Rolling:
    return pd.Series(values).rolling(n)


def lagged(values: np.ndarray, n: int = 1) -> np.ndarray:
    return np.concatenate([np.full(n, np.nan), values[:-n]])


def yang_zhang() -> np.ndarray:
    gap, body = rolling(np.log(OPEN / lagged(C)), 20).var(), rolling(np.log(C / OPEN), 20).var()
    k = 0.34 / (1.34 + 21 / 19)
    return np.sqrt(gap + k * body + (1 - k) * rogers_satchell() ** 2).to_numpy()


def rogers_satchell() -> np.ndarray:
    terms = np.log(H / C) * np.log(H / OPEN) + np.log(L / C) * np.log(L / OPEN)
    return np.sqrt(rolling(terms, 20).mean()).to_numpy()


def realized(n: int) -> np.ndarray:
    return np.sqrt(rolling(np.log(C / lagged(C)) ** 2, n).mean()).to_numpy()


def session_vwap() -> np.ndarray:
    session = sessions_of(BARS["time"]).locate(BARS["time"])
    frame = pd.DataFrame({"pv": V * (H + L + C) / 3, "v": V, "s": session})
    sums = frame.groupby("s")[["pv", "v"]].cumsum()
    return C / (sums["pv"] / sums["v"]).to_numpy() - 1


def since_open() -> np.ndarray:
    session = sessions_of(BARS["time"]).locate(BARS["time"])
    return C / pd.Series(OPEN).groupby(session).transform("first").to_numpy() - 1


def range_position() -> np.ndarray:
    low, high = rolling(L, 60).min(), rolling(H, 60).max()
    return ((C - low) / (high - low)).to_numpy()


def quoted_spread() -> np.ndarray:
    middle = (FRAME["ask"] + FRAME["bid"]) / 2
    return ((FRAME["ask"] - FRAME["bid"]) / middle).to_numpy()


def minutes_between() -> np.ndarray:
    return (FRAME["time"].diff().dt.total_seconds() / 60).to_numpy()


def zscore(n: int) -> np.ndarray:
    return ((V - rolling(V, n).mean()) / rolling(V, n).std()).to_numpy()


IMBALANCE = (C - OPEN) / (H - L)
SQUARED = np.log(C / lagged(C)) ** 2
FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    **{f"return_{n}": lambda n=n: C / lagged(C, n) - 1 for n in (2, 3, 5, 10, 15, 20, 30, 60, 90, 120, 240)},
    **{f"return_1_lag_{k}": lambda k=k: lagged(C, k) / lagged(C, k + 1) - 1 for k in range(1, 60)},
    "return_1_lag_0": lambda: C / lagged(C) - 1,
    "range_position_60": range_position,
    **{f"realized_volatility_{n}": lambda n=n: realized(n) for n in (10, 20, 60)},
    "volatility_ratio_10_60": lambda: realized(10) / realized(60),
    "ewma_volatility_20": lambda: np.sqrt(pd.Series(SQUARED).ewm(span=20, adjust=False).mean()).to_numpy(),
    "parkinson_volatility_20": lambda: np.sqrt(
        rolling(np.log(H / L) ** 2, 20).mean() / (4 * np.log(2))
    ).to_numpy(),
    "garman_klass_volatility_20": lambda: np.sqrt(
        rolling(0.5 * np.log(H / L) ** 2 - (2 * np.log(2) - 1) * np.log(C / OPEN) ** 2, 20).mean()
    ).to_numpy(),
    "rogers_satchell_volatility_20": rogers_satchell,
    "yang_zhang_volatility_20": yang_zhang,
    "range_1": lambda: (H - L) / C,
    "volume_ratio_20": lambda: V / rolling(V, 20).mean().to_numpy(),
    "volume_zscore_20": lambda: zscore(20),
    "volume_zscore_60": lambda: zscore(60),
    "vwap_distance_20": lambda: (
        C / (rolling(V * (H + L + C) / 3, 20).sum() / rolling(V, 20).sum()).to_numpy() - 1
    ),
    "vwap_distance_session": session_vwap,
    "return_since_open": since_open,
    "order_flow_imbalance": lambda: IMBALANCE,
    **{f"order_flow_mean_{n}": lambda n=n: rolling(IMBALANCE, n).mean().to_numpy() for n in (5, 10, 30, 60)},
    "weighted_body_30": lambda: sum(
        (30 - k) / 30 * (lagged((C - OPEN) / C, k) if k else (C - OPEN) / C) for k in range(30)
    ),
    "spread_relative": quoted_spread,
    "minutes_since_previous_bar": minutes_between,
    "hour_sin": lambda: np.sin(2 * np.pi * day_share()),
    "hour_cos": lambda: np.cos(2 * np.pi * day_share()),
}


def day_share() -> np.ndarray:
    decided = FRAME["time"] + pd.Timedelta(minutes=1)
    return ((decided.dt.hour * 60 + decided.dt.minute) / 1_440).to_numpy()


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    check(name, FORMULAS[name](), CATALOG[name].lookback, relative=1e-7)


def test_every_feature_has_an_oracle() -> None:
    elsewhere = {"minutes_since_open", "minutes_to_close"}  # test_kernel, on days known by heart
    for group in ELSEWHERE:
        elsewhere |= set(import_module(f"tests.features.test_formulas_{group}").FORMULAS)
    elsewhere |= {f.name for f in news(0.2, 0.3)}  # tests/sentiment/test_signals and test_news
    assert {*CATALOG.names, *CATALOG.dropped} == set(TALIB) | set(FORMULAS) | elsewhere


def check(name: str, expected: np.ndarray, warm_up: int, *, relative: float) -> None:
    """Values from the oracle's own rounding on, null exactly before the lookback."""
    assert ROWS[name].is_null().arg_true().to_list() == list(range(CATALOG[name].lookback - 1))
    got = ROWS[name].to_numpy()[warm_up - 1 :]
    spread = np.subtract(*np.nanpercentile(expected, [75, 25]))
    # 1e-7 of the spread: the oracles themselves carry running sums and price levels
    np.testing.assert_allclose(got, expected[warm_up - 1 :], rtol=relative, atol=relative * spread)
    assert pl.Series(got).is_finite().all()
