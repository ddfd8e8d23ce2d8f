"""The price features in vectorised pandas: returns and their lags, momentum, trend, volatility.

Written as one would in pandas: rolling, ewm and shift, NumPy where pandas has no window of the kind.
Nothing is nulled before a lookback, and a window's rounding depends on what came before it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["columns", "lags"]

_TINY = 1e-9


def columns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """Features by name, each of the length of `bars` (columns open, high, low, close); `lags` are apart."""
    return {**_returns(bars), **_momentum(bars), **_trend(bars), **_volatility(bars)}


def lags(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """The lags of the return, apart: the benchmark leaves them out unless it is asked for them."""
    change = bars["close"].pct_change(fill_method=None)
    return {f"return_1_lag_{k}": change.shift(k) for k in range(60)}


def _returns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close = bars["close"]
    spans = (2, 3, 5, 10, 15, 20, 30, 60, 90, 120, 150, 180, 210, 240, 270, 360)
    return {
        **{f"return_{n}": close.pct_change(n, fill_method=None) for n in spans},
        "log_return_1": np.log(close).diff(),
    }


def _momentum(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close, change = bars["close"], bars["close"].diff()
    gain, loss, spread = change.clip(lower=0), -change.clip(upper=0), _mean_true_range(bars)
    fast, slow = close.ewm(span=12, adjust=False).mean(), close.ewm(span=26, adjust=False).mean()
    macd = fast - slow
    signal = macd.ewm(span=9, adjust=False).mean()
    sizes = (3, 5, 10, 20)
    return {
        **{f"rsi_{n}": _strength(_wilder(gain, n), _wilder(loss, n), close) for n in (9, 14, 21)},
        **{
            f"rsi_simple_{n}": _strength(gain.rolling(n).mean(), loss.rolling(n).mean(), close)
            for n in (14, 20)
        },
        "macd": macd / close,
        "macd_signal": signal / close,
        "macd_histogram": (macd - signal) / close,
        "roc_12": close.pct_change(12, fill_method=None),
        **{f"momentum_atr_{n}": (close.diff(n) / spread).where(spread > _TINY * close, 0.0) for n in sizes},
        **_oscillators(bars),
    }


def _strength(gain: pd.Series, loss: pd.Series, close: pd.Series) -> pd.Series:
    return (100 * gain / (gain + loss)).where(gain + loss > _TINY * close, 50.0)


def _oscillators(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close, typical = bars["close"], (bars["high"] + bars["low"] + bars["close"]) / 3
    low, high = bars["low"].rolling(14).min(), bars["high"].rolling(14).max()
    fast = (100 * (close - low) / (high - low)).where(high > low, 50.0)
    smooth = fast.rolling(3).mean()
    center = typical.rolling(20).mean()
    scatter = sum((typical.shift(k) - center).abs() for k in range(20)) / 20
    mean, sigma = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    moves = sigma > _TINY * close
    return {
        "stochastic_k_14": fast,
        "stochastic_d_14": smooth,
        "stochastic_slow_d": smooth.rolling(3).mean(),
        "cci_20": ((typical - center) / (0.015 * scatter)).where(scatter > _TINY * typical, 0.0),
        "bollinger_width_20": 4 * sigma / mean,
        "bollinger_position_20": ((close - mean) / (4 * sigma) + 0.5).where(moves, 0.5),
    }


def _trend(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close = bars["close"]
    simple = {n: close.rolling(n).mean() for n in (5, 7, 10, 14, 20, 21, 50, 100)}
    spans = (5, 7, 10, 12, 14, 20, 21, 26, 50)
    strength, sigma = simple[20] / simple[50] - 1, close.rolling(50).std()
    return {
        **{f"sma_distance_{n}": close / mean - 1 for n, mean in simple.items()},
        **{f"ema_distance_{n}": close / close.ewm(span=n, adjust=False).mean() - 1 for n in spans},
        "sma_cross_5_20": simple[5] / simple[20] - 1,
        "sma_cross_20_50": strength,
        "is_uptrend": (strength > _TINY).astype(float),
        "zscore_50": ((close - simple[50]) / sigma).where(sigma > _TINY * close, 0.0),
        **_directional(bars),
        **_channels(bars),
        **_line(close),
    }


def _directional(bars: pd.DataFrame) -> dict[str, pd.Series]:
    up, down, close = bars["high"].diff(), -bars["low"].diff(), bars["close"]
    plus = _wilder(up.where((up > down) & (up > 0), 0.0).where(up.notna()), 14)
    minus = _wilder(down.where((down > up) & (down > 0), 0.0).where(down.notna()), 14)
    spread, moved = _mean_true_range(bars), plus + minus
    index = (100 * (plus - minus).abs() / moved).where(moved > _TINY * close, 0.0).where(moved.notna())
    ranges = spread > _TINY * close
    return {
        "adx_14": _wilder(index, 14),
        "di_difference_14": (100 * (plus - minus) / spread).where(ranges, 0.0),
        "plus_di_14": (100 * plus / spread).where(ranges, 0.0),
        "minus_di_14": (100 * minus / spread).where(ranges, 0.0),
    }


def _channels(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close = bars["close"]
    highs = {n: bars["high"].rolling(n).max() for n in (20, 60)}
    lows = {n: bars["low"].rolling(n).min() for n in (20, 60)}
    since_high, since_low = _age_of_maximum(bars["high"], 26), _age_of_maximum(-bars["low"], 26)
    return {
        **{
            f"range_position_{n}": ((close - low) / (highs[n] - low)).where(highs[n] > low, 0.5)
            for n, low in lows.items()
        },
        "distance_from_high_20": close / highs[20] - 1,
        "distance_from_low_20": close / lows[20] - 1,
        "breakout_up_20": (close > highs[20].shift(1)).astype(float),
        "breakout_down_20": (close < lows[20].shift(1)).astype(float),
        "aroon_oscillator_25": 100 * (since_low - since_high) / 25,
    }


def _age_of_maximum(values: pd.Series, window: int) -> pd.Series:
    views = np.lib.stride_tricks.sliding_window_view(values.to_numpy(), window)
    age = pd.Series(views[:, ::-1].argmax(axis=1), index=values.index[window - 1 :])
    return age.reindex(values.index)


def _line(close: pd.Series) -> dict[str, pd.Series]:
    around = 9.5 - np.arange(20)
    slope = sum(weight * close.shift(k) for k, weight in enumerate(around / (around**2).sum()))
    variance = close.rolling(20).var(ddof=0)
    explained = slope**2 * (around**2).mean() / variance
    return {
        "linear_slope_20": slope / close,
        "linear_r2_20": explained.where(variance > (_TINY * close) ** 2, 0.0),
    }


def _volatility(bars: pd.DataFrame) -> dict[str, pd.Series]:
    close = bars["close"]
    change, simple = np.log(close).diff(), close.pct_change(fill_method=None)
    square = change**2
    realized = {n: np.sqrt(square.rolling(n).mean()) for n in (5, 10, 20, 60, 120)}
    short, long = simple.rolling(20).std(), simple.rolling(50).std()
    bipower = np.pi / 2 * (change.abs() * change.abs().shift(1)).rolling(59).mean()
    jumps = (1 - bipower / realized[60] ** 2).clip(lower=0)
    return {
        **{f"realized_volatility_{n}": value for n, value in realized.items()},
        "volatility_ratio_10_60": (realized[10] / realized[60]).where(realized[60] > _TINY, 1.0),
        "ewma_volatility_20": np.sqrt(square.ewm(span=20, adjust=False).mean()),
        "return_sd_20": short,
        "return_sd_50": long,
        "volatility_ratio_20_50": (short / long).where(long > _TINY, 1.0),
        "volatility_of_volatility_20": short.rolling(20).std(),
        "down_volatility_20": np.sqrt((change.clip(upper=0) ** 2).rolling(20).mean()),
        "up_volatility_20": np.sqrt((change.clip(lower=0) ** 2).rolling(20).mean()),
        "bipower_volatility_60": np.sqrt(bipower),
        "jump_share_60": jumps.where(realized[60] > _TINY, 0.0),
        **_ranges(bars),
    }


def _ranges(bars: pd.DataFrame) -> dict[str, pd.Series]:
    opened, high, low, close = (bars[name] for name in ("open", "high", "low", "close"))
    span, body, gap = np.log(high / low), np.log(close / opened), np.log(opened / close.shift(1))
    garman = (0.5 * span**2 - (2 * np.log(2) - 1) * body**2).clip(lower=0)
    satchell = np.log(high / close) * np.log(high / opened) + np.log(low / close) * np.log(low / opened)
    drift_free, k = satchell.rolling(20).mean(), 0.34 / (1.34 + 21 / 19)
    overnight, inside = gap.rolling(20).var(), body.rolling(20).var()
    size = (high - low) / close
    return {
        **{
            f"parkinson_volatility_{n}": np.sqrt((span**2).rolling(n).mean() / (4 * np.log(2)))
            for n in (20, 60)
        },
        "garman_klass_volatility_20": np.sqrt(garman.rolling(20).mean()),
        "rogers_satchell_volatility_20": np.sqrt(drift_free),
        "yang_zhang_volatility_20": np.sqrt(overnight + k * inside + (1 - k) * drift_free),
        "atr_14": _mean_true_range(bars) / close,
        "range_1": size,
        "range_mean_20": size.rolling(20).mean(),
    }


def _mean_true_range(bars: pd.DataFrame) -> pd.Series:
    previous = bars["close"].shift(1)
    above, below = np.maximum(bars["high"], previous), np.minimum(bars["low"], previous)
    return _wilder(above - below, 14)


def _wilder(values: pd.Series, period: int) -> pd.Series:
    return values.ewm(alpha=1 / period, adjust=False).mean()
