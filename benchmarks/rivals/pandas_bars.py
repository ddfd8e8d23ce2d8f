"""Bar, session, volume, liquidity, regime and gap features as a user of pandas writes them, vectorised."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["columns"]


def columns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """The catalogue's columns of these groups.

    Parameters
    ----------
    bars:
        One row a bar: time (UTC), open, high, low, close, volume, bid, ask, bid_size, ask_size (the last five
        where there are any), decision_at, and session, open_at, close_at, missing outside sessions.
    """
    found = {**_candles(bars), **_flow(bars), **_dependence(bars), **_regime(bars)}
    found |= {**_session(bars), **_calendar(bars), **_gaps(bars), **_spreads(bars)}
    if "volume" in bars:
        found |= {**_volume(bars), **_money(bars), **_price_per_volume(bars), **_volume_in_session(bars)}
    if "bid" in bars:
        found |= _quotes(bars)
    if "bid_size" in bars:
        found |= _depth(bars)
    return found


def _share(part: pd.Series, whole: pd.Series, otherwise: float = np.nan) -> pd.Series:
    return (part / whole.where(whole > 0)).where(whole > 0, np.where(whole == 0, otherwise, np.nan))


def _candles(bars: pd.DataFrame) -> dict[str, pd.Series]:
    o, h, lo, c = (bars[name] for name in ("open", "high", "low", "close"))
    span, height = h - lo, (c - o).abs()
    top, bottom = np.maximum(o, c), np.minimum(o, c)
    upper, lower = h - top, bottom - lo
    before, opened = c.shift(), o.shift()
    bullish = (before < opened) & (c > o) & (o <= before) & (c >= opened)
    bearish = (before > opened) & (c < o) & (o >= before) & (c <= opened)
    direction = np.sign(c.diff())
    run = direction.groupby((direction != direction.shift()).cumsum()).cumcount() + 1
    return {
        "candle_body": (c - o) / c,
        "previous_body": ((c - o) / c).shift(),
        "upper_shadow": upper / c,
        "lower_shadow": lower / c,
        "body_share": _share(height, span, 0.0),
        "close_location": _share(2 * c - h - lo, span, 0.0),
        "is_doji": ((span > 0) & (height < 0.1 * span)).astype(float),
        "is_hammer": ((span > 0) & (lower >= 2 * height) & (upper <= 0.1 * span)).astype(float),
        "is_shooting_star": ((span > 0) & (upper >= 2 * height) & (lower <= 0.1 * span)).astype(float),
        "engulfing": bullish.astype(float) - bearish.astype(float),
        "inside_bar": ((h <= h.shift()) & (lo >= lo.shift())).astype(float),
        "run_length_10": direction * run.clip(upper=10),
    }


def _flow(bars: pd.DataFrame) -> dict[str, pd.Series]:
    o, h, lo, c = (bars[name] for name in ("open", "high", "low", "close"))
    imbalance, body = _share(c - o, h - lo, 0.0), (c - o) / c
    weighted = sum((30 - k) / 30 * body.shift(k) for k in range(30))
    means = {f"order_flow_mean_{n}": imbalance.rolling(n).mean() for n in (5, 10, 30, 60)}
    return {"order_flow_imbalance": imbalance, "weighted_body_30": weighted, **means}


def _dependence(bars: pd.DataFrame) -> dict[str, pd.Series]:
    c = bars["close"]
    change, move = c.pct_change(fill_method=None), c.diff()
    log = np.log(c)
    one, five = log.diff(), log.diff(5)
    drift = five.rolling(56).mean() - 5 * one.rolling(60).mean()
    long = (55 * five.rolling(56).var() + 56 * drift**2) / (5 * 56 * (1 - 5 / 60))
    return {
        "efficiency_ratio_20": _share(c.diff(20).abs(), move.abs().rolling(20).sum(), 0.0),
        "return_autocorrelation_60": _serial_covariance(change, 60)
        * (60 / 59)
        / (change.rolling(60).std() * change.shift().rolling(60).std()),
        "variance_ratio_5_60": long / one.rolling(60).var(),
        "zero_return_share_60": (move == 0).astype(float).rolling(60).mean(),
    }


def _serial_covariance(change: pd.Series, window: int) -> pd.Series:
    product = (change * change.shift()).rolling(window).mean()
    return product - change.rolling(window).mean() * change.shift().rolling(window).mean()


def _spreads(bars: pd.DataFrame) -> dict[str, pd.Series]:
    h, lo = bars["high"], bars["low"]
    covariance = _serial_covariance(bars["close"].pct_change(fill_method=None), 20)
    squared = np.log(h / lo) ** 2
    beta = squared + squared.shift()
    gamma = np.log(h.rolling(2).max() / lo.rolling(2).min()) ** 2
    k = 3 - 2 * np.sqrt(2)
    alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / k - np.sqrt(gamma / k)
    return {
        "roll_spread_20": 2 * np.sqrt((-covariance).clip(lower=0)),
        "corwin_schultz_spread": (2 * np.expm1(alpha) / (1 + np.exp(alpha))).clip(lower=0),
    }


def _regime(bars: pd.DataFrame) -> dict[str, pd.Series]:
    c = bars["close"]
    squared = np.log(c / c.shift()) ** 2
    level = np.sqrt(squared.rolling(20).mean())
    median = level.rolling(720).median()
    ratio = np.sqrt(squared.rolling(10).mean() / squared.rolling(60).mean())
    rank = sum((level.shift(k) <= level).astype(float) for k in range(0, 720, 5)) / 144
    span = ((bars["high"] - bars["low"]) / c).rolling(5).mean()
    low, high = span.rolling(720).min(), span.rolling(720).max()
    found = {
        "volatility_percentile_720": rank,
        "volatility_low_720": (level < 0.7 * median).astype(float),
        "volatility_high_720": (level > 1.5 * median).astype(float),
        "high_volatility": (ratio > 1.5).astype(float),
        "is_trending": (_adx(bars) > 25).astype(float),
        "market_stress": 0.6 * rank + 0.4 * (span - low) / (high - low),
    }
    if "volume" in bars:
        volume = bars["volume"]
        found["high_volume"] = (volume.rolling(5).mean() > 1.2 * volume.rolling(20).mean()).astype(float)
    return found


def _adx(bars: pd.DataFrame) -> pd.Series:
    up, down = bars["high"].diff(), -bars["low"].diff()
    plus = up.where((up > down) & (up > 0), 0.0).ewm(alpha=1 / 14, adjust=False).mean()
    minus = down.where((down > up) & (down > 0), 0.0).ewm(alpha=1 / 14, adjust=False).mean()
    return (100 * _share((plus - minus).abs(), plus + minus, 0.0)).ewm(alpha=1 / 14, adjust=False).mean()


def _session(bars: pd.DataFrame) -> dict[str, pd.Series]:
    c, sessions = bars["close"], bars.groupby("session", dropna=True)
    since = (bars["decision_at"] - bars["open_at"]).dt.total_seconds() / 60
    left = (bars["close_at"] - bars["decision_at"]).dt.total_seconds() / 60
    inside = bars["session"].notna()
    high, low = sessions["high"].cummax(), sessions["low"].cummin()
    decision = bars["decision_at"]
    angle = 2 * np.pi / 24 * (decision.dt.hour + decision.dt.minute / 60)
    return {
        "minutes_since_open": since,
        "minutes_to_close": left,
        "minutes_since_previous_bar": bars["time"].diff().dt.total_seconds() / 60,
        "session_progress": since / (since + left),
        "is_session_open_30": (since <= 30).astype(float).where(inside),
        "is_session_close_30": (left < 30).astype(float).where(inside),
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "return_since_open": c / sessions["open"].transform("first") - 1,
        "return_from_session_high": c / high - 1,
        "return_from_session_low": c / low - 1,
        "session_range_position": _share(c - low, high - low, 0.5),
    }


def _calendar(bars: pd.DataFrame) -> dict[str, pd.Series]:
    at = bars["decision_at"].dt
    cycles = {"dow": (at.weekday, 7), "month": (at.month - 1, 12), "minute": (at.minute, 60)}
    local = bars["decision_at"].dt.tz_convert("America/New_York").dt
    minute, weekday = local.hour * 60 + local.minute, local.weekday < 5
    phases = {"premarket": (240, 570), "regular": (570, 960), "afterhours": (960, 1200)}
    return {
        **{f"{name}_sin": np.sin(2 * np.pi * n / length) for name, (n, length) in cycles.items()},
        **{f"{name}_cos": np.cos(2 * np.pi * n / length) for name, (n, length) in cycles.items()},
        "is_monday": (at.weekday == 0).astype(float),
        "is_friday": (at.weekday == 4).astype(float),
        "quarter": at.quarter.astype(float),
        "day_of_month_share": at.day / at.days_in_month,
        **{
            f"is_us_{name}": (weekday & (minute >= start) & (minute < end)).astype(float)
            for name, (start, end) in phases.items()
        },
    }


def _gaps(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """Gaps of one-minute bars."""
    before, sessions = bars["close"].shift(), bars.groupby("session", dropna=True)
    reached = sessions.cumcount() < 1439
    last = before.groupby(bars["session"]).transform("first")
    low, high = sessions["low"].cummin(), sessions["high"].cummax()
    filled = ((low <= last) & (last <= high)).astype(float)
    span = (bars["time"] - bars["time"].shift(59)).dt.total_seconds() / 60
    held = pd.Series(1.0, index=bars["time"])
    counts = {n: held.rolling(f"{n}min").sum().to_numpy() for n in (30, 60, 360)}
    return {
        "gap_1": bars["open"] / before - 1,
        "session_gap": (sessions["open"].transform("first") / last - 1).where(reached),
        "gap_filled": filled.where(reached & bars["session"].notna()),
        "missing_share_60": (1 - 59 / span).clip(0, 1),
        "bars_30_to_60": pd.Series((counts[60] - counts[30]) / 30, index=bars.index),
        "bars_30_to_360": pd.Series((counts[360] - counts[30]) / 330, index=bars.index),
    }


def _volume(bars: pd.DataFrame) -> dict[str, pd.Series]:
    volume, c = bars["volume"], bars["close"]
    means = {n: volume.rolling(n).mean() for n in (5, 20, 50, 60)}
    scores = {n: _share(volume - means[n], volume.rolling(n).std(), 0.0) for n in (20, 60)}
    worth = volume * (bars["high"] + bars["low"] + c) / 3
    change = np.log(volume.where(volume > 0)).diff()
    return {
        "volume_ratio_20": _share(volume, means[20]),
        "volume_ratio_50": _share(volume, means[50]),
        "volume_ratio_5_20": _share(means[5], means[20]),
        "volume_zscore_20": scores[20],
        "volume_zscore_60": scores[60],
        "abnormal_volume": (scores[20] > 2 + 1e-9).astype(float),
        "volume_change_1": change,
        "volume_acceleration": change.diff(),
        **{f"vwap_distance_{n}": c / _share(worth.rolling(n).mean(), means[n]) - 1 for n in (20, 60)},
        "volume_return_correlation_20": volume.rolling(20).corr(c.pct_change(fill_method=None)),
    }


def _money(bars: pd.DataFrame) -> dict[str, pd.Series]:
    volume, typical = bars["volume"], (bars["high"] + bars["low"] + bars["close"]) / 3
    signed, mean = np.sign(bars["close"].diff()) * volume, volume.rolling(20).mean()
    balance = signed.fillna(0.0).cumsum()
    steps = pd.Series(np.arange(len(bars), dtype=float), index=bars.index)
    slope = balance.rolling(20).cov(steps) / 35.0  # the variance of 20 steps
    worth, rise = volume * typical, typical.diff()
    into, out = (worth.where(side, 0.0).rolling(14).sum() for side in (rise > 0, rise < 0))
    return {
        "signed_volume_share_20": _share(signed.rolling(20).mean(), mean),
        "obv_slope_20": _share(slope, mean),
        "mfi_14": _share(100 * into, into + out, 50.0),
    }


def _price_per_volume(bars: pd.DataFrame) -> dict[str, pd.Series]:
    volume, c = bars["volume"], bars["close"]
    size = c.pct_change(fill_method=None).abs()
    ratio = size / (c * volume).where(volume > 0)
    illiquidity = {n: ratio.rolling(n, min_periods=1).mean() for n in (20, 240)}
    impact = {n: (size * volume).rolling(n).sum() / (volume**2).rolling(n).sum() for n in (20, 240)}
    return {
        "amihud_illiquidity_20": illiquidity[20] / illiquidity[240],
        "price_impact_20": impact[20] / impact[240],
    }


def _volume_in_session(bars: pd.DataFrame) -> dict[str, pd.Series]:
    worth = bars["volume"] * (bars["high"] + bars["low"] + bars["close"]) / 3
    sums = worth.groupby(bars["session"]).cumsum(), bars["volume"].groupby(bars["session"]).cumsum()
    return {"vwap_distance_session": bars["close"] / _share(*sums) - 1}


def _quotes(bars: pd.DataFrame) -> dict[str, pd.Series]:
    bid, ask = bars["bid"], bars["ask"]
    spread = 2 * (ask - bid) / (ask + bid)
    windows = spread.rolling(60)
    return {
        "spread_relative": spread,
        "spread_mean_20": spread.rolling(20).mean(),
        "spread_zscore_60": _share(spread - windows.mean(), windows.std(), 0.0),
        "quote_position": _share(2 * bars["close"] - ask - bid, ask - bid),
    }


def _depth(bars: pd.DataFrame) -> dict[str, pd.Series]:
    bid, ask = bars["bid_size"], bars["ask_size"]
    depth = bid + ask
    return {
        "depth_imbalance": _share(bid - ask, depth),
        "depth_ratio_20": _share(depth, depth.rolling(20).mean()),
        "microprice_distance": _share(bars["bid"] * ask + bars["ask"] * bid, depth) / bars["close"] - 1,
    }
