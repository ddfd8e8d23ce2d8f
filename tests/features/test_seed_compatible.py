"""The seed-compatible sets against pandas on seeded bars: their names, values, nulls and lookbacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from marketray.features.audit import look_ahead
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.row import RowPlan
from marketray.features.stage import run_features
from marketray.features.warmup import warm_up
from marketray.lake import Lake
from marketray.settings import FeatureSettings, Settings
from tests.features.market import COLUMNS, assert_equal, make_bars, sessions_of, spread, store

SETTINGS = FeatureSettings(catalog="seed-compatible")
CATALOG = build_catalog(SETTINGS, COLUMNS)
BARS = make_bars(3_000, seed=17, flat=False, start=datetime(2024, 2, 22, tzinfo=UTC))  # over a weekend
ROWS = compute(CATALOG, BARS, sessions_of(BARS["time"]))
FLAT = make_bars(3_000, seed=18)  # with a flat stretch and a jump of 8 %
YEAR = np.sqrt(252)


def market(b: pd.DataFrame) -> dict[str, pd.Series]:
    """Technical, microstructure and volatility sets and the base inputs, written for pandas."""
    c = b["close"]
    r = c.pct_change()
    x = {f"return_{n}": c.pct_change(n) for n in (1, 5, 10, 30, 60, 90, 120, 150, 180, 210, 240, 270, 360)}
    x |= {f"rsi_{n}": rsi(c, n) for n in (14, 20)}
    x["macd"] = c.ewm(span=12, adjust=False).mean() - c.ewm(span=26, adjust=False).mean()
    x["macd_signal"] = x["macd"].ewm(span=9, adjust=False).mean()
    x["macd_histogram"] = x["macd"] - x["macd_signal"]
    middle, sigma = c.rolling(20).mean(), c.rolling(20).std()
    x["bb_upper"], x["bb_middle"], x["bb_lower"] = middle + 2 * sigma, middle, middle - 2 * sigma
    x["bb_width"] = (x["bb_upper"] - x["bb_lower"]) / middle
    x["bb_position"] = (c - x["bb_lower"]) / (x["bb_upper"] - x["bb_lower"])
    x |= {f"sma_{n}": c.rolling(n).mean() for n in (7, 14, 21, 50)}
    x |= {f"ema_{n}": c.ewm(span=n, adjust=False).mean() for n in (7, 14, 21)}
    x["atr_14"], x["adx_14"] = true_range(b).rolling(14).mean(), adx(b)
    x |= {f"momentum_{n}": c.diff(n) for n in (5, 10, 20)}
    x |= {f"roc_{n}": c.pct_change(n) * 100 for n in (5, 10)}
    x |= {f"volatility_{n}": r.rolling(n).std() for n in (20, 50)}
    return x | trading(b, r) | volatility(b, r) | base(b)


def trading(b: pd.DataFrame, r: pd.Series) -> dict[str, pd.Series]:
    c, v, span = b["close"], b["volume"], b["high"] - b["low"]
    mean, impact, illiquid = v.rolling(20).mean(), c.diff().abs() / (v + 1), r.abs() / (v + 1)
    vwap = (c * v).rolling(20).sum() / v.rolling(20).sum()
    return {
        "hl_range": span,
        "hl_range_pct": span / c,
        "hl_range_ma20": span.rolling(20).mean(),
        "spread_proxy": span,
        "spread_pct": span / c,
        "volume_ma20": mean,
        "volume_ma50": v.rolling(50).mean(),
        "volume_ratio": v / mean,
        "volume_zscore": (v - mean) / v.rolling(20).std(),
        "price_impact": impact,
        "price_impact_ma20": impact.rolling(20).mean(),
        "order_flow_imbalance": ((c - b["open"]) / span).fillna(0),
        "illiquidity": illiquid,
        "illiquidity_ma20": illiquid.rolling(20).mean(),
        "vwap": vwap,
        "close_vwap_ratio": c / vwap,
        "volume_velocity": v.diff(),
        "volume_acceleration": v.diff().diff(),
    }


def volatility(b: pd.DataFrame, r: pd.Series) -> dict[str, pd.Series]:
    o, h, lo, c = (b[name] for name in ("open", "high", "low", "close"))
    hl, co = np.log(h / lo), np.log(c / o)
    rs = np.log(h / c) * np.log(h / o) + np.log(lo / c) * np.log(lo / o)
    gap, k = np.log(o / c.shift()), 0.34 / (1.34 + 21 / 19)
    yz = gap.rolling(20).var() + k * co.rolling(20).var() + (1 - k) * rs.rolling(20).mean()
    hist = r.rolling(20).std() * YEAR
    median, share = hist.rolling(720).median(), (h - lo) / c
    return {
        "hist_vol_20": hist,
        "hist_vol_50": r.rolling(50).std() * YEAR,
        "gk_vol": np.sqrt((0.5 * hl**2 - (2 * np.log(2) - 1) * co**2).rolling(20).mean()) * YEAR,
        "parkinson_vol": np.sqrt((hl**2).rolling(20).mean() / (4 * np.log(2))) * YEAR,
        "rs_vol": np.sqrt(rs.rolling(20).mean()) * YEAR,
        "yz_vol": np.sqrt(yz) * YEAR,
        "vol_of_vol": hist.rolling(20).std(),
        "vol_regime_low": hist < 0.7 * median,
        "vol_regime_high": hist > 1.5 * median,
        "realized_range": share,
        "realized_range_ma": share.rolling(20).mean(),
        "ewma_vol": r.ewm(span=20).std() * YEAR,
    }


def base(b: pd.DataFrame) -> dict[str, pd.Series]:
    grid = pd.Series(1, index=b["time"]).resample("1min").sum()  # bars a minute, gaps included
    found = {n: (grid.rolling(n - 30).sum().shift(31) > 0).loc[b["time"]] for n in (60, 360)}
    return {
        **{name: b[name] for name in ("open", "high", "low", "volume")},
        "is_backfilled": 0 * b["close"],
        **{f"has_original_prev_30_to_{n}min": x.reset_index(drop=True) for n, x in found.items()},
    }


def rsi(c: pd.Series, n: int, epsilon: float = 0.0) -> pd.Series:
    gain, loss = c.diff().clip(lower=0).rolling(n).mean(), (-c.diff()).clip(lower=0).rolling(n).mean()
    return 100 - 100 / (1 + gain / (loss + epsilon))


def true_range(b: pd.DataFrame) -> pd.Series:
    previous = b["close"].shift()
    parts = (b["high"] - b["low"], (b["high"] - previous).abs(), (b["low"] - previous).abs())
    return pd.concat(parts, axis=1).max(axis=1)


def adx(b: pd.DataFrame) -> pd.Series:
    atr = true_range(b).rolling(14).mean()
    plus = b["high"].diff().clip(lower=0).rolling(14).mean() / atr
    minus = (-b["low"].diff()).clip(lower=0).rolling(14).mean() / atr
    return (100 * (plus - minus).abs() / (plus + minus)).rolling(14).mean()


def advanced(b: pd.DataFrame, m: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """The advanced set, given the market sets."""
    o, h, lo, c, v = (b[name] for name in ("open", "high", "low", "close", "volume"))
    v20, v50, wide = v.rolling(20).mean(), v.rolling(50).mean(), h - lo + 0.0001
    x = {
        "price_weighted_volume": c * v,
        "volume_imbalance": v.diff() / v20,
        "distance_from_vwap": (c - m["vwap"]) / m["vwap"],
        "distance_from_high_20": (h.rolling(20).max() - c) / c,
        "distance_from_low_20": (c - lo.rolling(20).min()) / c,
        "position_in_range": (c - lo) / wide,
        "volume_ratio_5_20": v.rolling(5).mean() / v20,
        "abnormal_volume": v / v50 - 1,
        "price_efficiency": (c - o) / wide,
        "high_low_ratio": h / lo - 1,
        "close_to_close_vol": m["volatility_20"],
    }
    sma20, sma50 = c.rolling(20).mean(), c.rolling(50).mean()
    ratio, sigma = m["volatility_20"] / m["volatility_50"], m["volatility_20"]
    extreme = sigma > sigma.rolling(252).mean() + 2 * sigma.rolling(252).std()
    x |= {
        "sma_20": sma20,
        "trend_strength": (sma20 - sma50) / sma50,
        "is_uptrend": sma20 > sma50,
        "volatility_ratio": ratio,
        "high_volatility": ratio > 1.5,
        "volume_20": v20,
        "volume_50": v50,
        "volume_regime": v20 / v50,
        "high_volume": v20 / v50 > 1.2,
        "market_stress": (ratio > 1.5) * 0.5 + (v20 / v50 > 1.2) * 0.3 + extreme * 0.2,
    }
    return x | clock(b["time"].dt) | patterns(o, h, lo, c)


def clock(t: pd.core.indexes.accessors.DatetimeProperties) -> dict[str, pd.Series]:
    hour, minute, day = t.hour, t.minute, t.dayofweek
    return {
        "hour": hour,
        "minute": minute,
        "is_us_premarket": hour.between(8, 14),
        "is_us_regular": hour.between(14, 20),
        "is_us_afterhours": hour.between(20, 24) | hour.between(0, 1),
        "day_of_week": day,
        "is_monday": day == 0,
        "is_friday": day == 4,
        "month": t.month,
        "quarter": t.quarter,
        "is_market_open": (hour == 14) & (minute < 31),
        "is_market_close": (hour == 20) & (minute >= 30),
        "hour_sin": np.sin(2 * np.pi * hour / 24),
        "hour_cos": np.cos(2 * np.pi * hour / 24),
        "dow_sin": np.sin(2 * np.pi * day / 7),
        "dow_cos": np.cos(2 * np.pi * day / 7),
    }


def patterns(o: pd.Series, h: pd.Series, lo: pd.Series, c: pd.Series) -> dict[str, pd.Series]:
    body, both = (c - o).abs() / o, pd.concat([o, c], axis=1)
    lower = (both.min(axis=1) - lo) / o
    top, bottom = h.rolling(20).max(), lo.rolling(20).min()
    return {
        "body_size": body,
        "upper_shadow": (h - both.max(axis=1)) / o,
        "lower_shadow": lower,
        "is_doji": body < 0.001,
        "is_hammer": (body < 0.002) & (lower > body * 2),
        "prev_body": body.shift(),
        "is_engulfing": body > body.shift() * 1.5,
        "near_20d_high": c > top * 0.98,
        "near_20d_low": c < bottom * 1.02,
        "breakout_up": c > top,
        "breakout_down": c < bottom,
    }


def hourly(b: pd.DataFrame) -> dict[str, pd.Series]:
    o, h, lo, c = (b[name] for name in ("open", "high", "low", "close"))
    short, long, sigma = c.rolling(5).mean(), c.rolling(20).mean(), c.rolling(20).std(ddof=0)
    x = {
        "log_return": np.log(c).diff(),
        "range_rel": (h - lo) / c,
        "body_rel": (c - o) / c,
        "ma_s": short,
        "ma_l": long,
        "ma_cross": (short - long) / long,
        "volatility": sigma,
        "rsi": rsi(c, 14, 1e-9),
        "atr_rel": true_range(b).rolling(14).mean() / c,
        "bb_width": 4 * sigma / long,
        "volume": b["volume"],
    }
    return {f"hourly_{name}": values for name, values in x.items()}


def daily(b: pd.DataFrame) -> dict[str, pd.Series]:
    o, h, lo, c, v = (b[name] for name in ("open", "high", "low", "close", "volume"))
    sigma = {n: c.rolling(n).std() for n in (5, 10, 20)}
    macd = c.ewm(span=12).mean() - c.ewm(span=26).mean()
    middle, vwap = c.rolling(20).mean(), (c * v).rolling(20).sum() / v.rolling(20).sum()
    x = {
        **{f"momentum_{n}": c.pct_change(n) for n in (3, 5, 10, 20)},
        **{f"volatility_{n}": s for n, s in sigma.items()},
        **{f"vol_ratio_{n}": s / s.rolling(50).mean() for n, s in sigma.items()},
        "volume_sma": v.rolling(20).mean(),
        "volume_ratio": v / v.rolling(20).mean(),
        "price_volume": c * v,
        **{f"price_vs_sma_{n}": c / c.rolling(n).mean() - 1 for n in (10, 20, 50)},
        "high_low_ratio": (h - lo) / c,
        "close_vs_high": (c - h) / h,
        "close_vs_low": (c - lo) / lo,
        "gap": o / c.shift() - 1,
        "intraday_return": c / o - 1,
        **{f"rsi_{n}": rsi(c, n) for n in (9, 14, 21)},
        "macd": macd,
        "macd_signal": macd.ewm(span=9).mean(),
        "macd_histogram": macd - macd.ewm(span=9).mean(),
        "bb_upper": middle + 2 * sigma[20],
        "bb_lower": middle - 2 * sigma[20],
        "bb_position": (c - middle + 2 * sigma[20]) / (4 * sigma[20]),
        "vwap": vwap,
        "price_vs_vwap": c / vwap,
    }
    return {f"daily_{name}": values for name, values in x.items()}


FRAME = BARS.to_pandas()
MARKET = market(FRAME)
EXPECTED = {**MARKET, **advanced(FRAME, MARKET), **hourly(FRAME), **daily(FRAME)}


def test_the_sets_have_their_columns_and_the_lags() -> None:
    assert len(MARKET) == 76
    assert [len(f(FRAME)) for f in (hourly, daily)] == [11, 32]
    assert len(advanced(FRAME, MARKET)) == 48
    assert set(CATALOG.names) == set(EXPECTED) | {f"return_1_lag_{k}" for k in range(60)}
    groups = {f.group: len(CATALOG.group(f.group)) for f in CATALOG.features}
    assert groups == {
        "seed_technical": 39,
        "seed_microstructure": 18,
        "seed_volatility": 12,
        "seed_base": 7,
        "seed_advanced": 48,
        "seed_hourly": 11,
        "seed_daily": 32,
        "lags": 60,
    }
    assert CATALOG.lookback == 740


@pytest.mark.parametrize("name", EXPECTED)
def test_values_are_those_of_pandas(name: str) -> None:
    lookback = CATALOG[name].lookback
    expected = EXPECTED[name].to_numpy(dtype=float)[lookback - 1 :]
    assert ROWS[name][: lookback - 1].null_count() == lookback - 1
    width = np.subtract(*np.nanpercentile(expected, [75, 25]))
    # 1e-7 of the spread: pandas' rolling sums run from the first bar on, at the level of prices
    np.testing.assert_allclose(ROWS[name].to_numpy()[lookback - 1 :], expected, rtol=1e-7, atol=1e-7 * width)


def test_flags_that_can_be_set_are_set_somewhere() -> None:
    never = {"is_backfilled", "breakout_up", "breakout_down"}
    always = {"near_20d_high", "near_20d_low"}  # no close of these bars is 2 % away
    jump = compute(CATALOG, FLAT, sessions_of(FLAT["time"]))
    for name in (f.name for f in CATALOG.features if f.unit == "flag"):
        seen = set(ROWS[name].drop_nulls().to_list())
        if name in {"high_volatility", "vol_regime_high"}:
            seen |= set(jump[name].drop_nulls().to_list())
        assert seen == ({0.0} if name in never else {1.0} if name in always else {0.0, 1.0}), name


def test_original_bars_are_sought_from_60_or_360_to_31_minutes_back() -> None:
    start = datetime(2024, 2, 20, 12, tzinfo=UTC)
    back = (500, 360, 59, 30, 0)  # minutes before the last bar; more bars before them count as history
    times = [start - timedelta(minutes=500 + 400 - i) for i in range(400)]
    times += [start - timedelta(minutes=m) for m in back]
    for lost, near, far in ((), 1.0, 1.0), ((59,), 0.0, 1.0), ((59, 360), 0.0, 0.0):
        kept = [t for t in times if (start - t) / timedelta(minutes=1) not in lost]
        bars = BARS.head(len(kept)).with_columns(time=pl.Series(kept).cast(pl.Datetime("us", "UTC")))
        last = compute(CATALOG, bars, sessions_of(bars["time"])).tail(1)
        assert last["has_original_prev_30_to_60min"].item() == near
        assert last["has_original_prev_30_to_360min"].item() == far


def test_a_flat_stretch_has_the_values_that_the_null_policies_state() -> None:
    rows = compute(CATALOG, FLAT, sessions_of(FLAT["time"]))
    last = rows.row(3_000 // 3 + 39, named=True)  # nothing has moved for 40 bars
    undefined = ("rsi_14", "adx_14", "bb_position", "daily_rsi_21", "daily_bb_position")
    assert {name: last[name] for name in undefined} == dict.fromkeys(undefined)
    for name in ("order_flow_imbalance", "hourly_rsi", "volatility_20", "daily_vol_ratio_10", "is_engulfing"):
        assert last[name] == 0.0, name
    assert last["volatility_ratio"] == 0.0


def test_flags_stay_0_where_nothing_moves_or_is_traded_at_all() -> None:
    bars = BARS.with_columns(volume=0.0, **dict.fromkeys(("open", "high", "low", "close"), pl.lit(100.0)))
    last = compute(CATALOG, bars, sessions_of(bars["time"])).row(-1, named=True)
    undefined = ("volatility_ratio", "volume_regime", "vwap", "volume_zscore", "daily_vol_ratio_5")
    assert {name: last[name] for name in undefined} == dict.fromkeys(undefined)
    flags = ("is_uptrend", "high_volatility", "high_volume", "market_stress", "vol_regime_low", "is_hammer")
    assert {name: last[name] for name in flags} == dict.fromkeys(flags, 0.0)


def test_nothing_looks_ahead_and_every_lookback_is_enough() -> None:
    bars = FLAT.tail(2_100)  # begins in front of the jump
    sessions = sessions_of(bars["time"])
    sets = CATALOG.subset([name for name in CATALOG.names if name not in CATALOG.group("lags")])
    cuts = (1, 20, 21, 50, 101, 272, 600, 601, 740, 741, 1_379, 1_700, 2_099)
    assert look_ahead(sets, bars, sessions, cuts=cuts) == []
    results = warm_up(sets, bars, sessions)
    assert [m.feature for m in results] == list(sets.names)
    assert [m for m in results if not m.enough] == []


def test_a_live_row_is_the_batchs() -> None:
    sessions = sessions_of(FLAT["time"])
    rows = compute(CATALOG, FLAT, sessions)
    spreads = {name: spread(rows, name) for name in CATALOG.names}
    exact = {f.name for f in CATALOG.features if f.exact}
    plan = RowPlan(CATALOG)
    for end in (740, 1_041, 1_501, 3_000):
        got = plan.evaluate(FLAT.slice(max(end - 740, 0), 740), sessions).frame()
        assert_equal(got, rows.slice(end - 1, 1), spreads, exact)


@pytest.mark.usefixtures("ray_local")
def test_the_stage_stores_the_sets_under_their_names(home: Path) -> None:
    settings = Settings(home=home, instrument="TEST_USD", features=SETTINGS)
    lake = Lake(settings.lake_uri)
    bars = make_bars(1_500, seed=19, start=datetime(2024, 2, 29, tzinfo=UTC))  # into March
    store(lake, "TEST_USD", bars)
    done = run_features(settings)
    assert (done.features, done.lookback, done.months) == (227, 740, ("2024-02", "2024-03"))
    rows = pl.concat(pl.DataFrame(pl.from_arrow(t)) for _, t in lake.scan("silver/features"))
    assert rows.columns == ["time", "decision_at", *CATALOG.names]
    assert rows["month"].to_list() == bars["time"].dt.month().to_list()  # not the partition's label
    assert rows["open"].to_list() == bars["open"].to_list()


@pytest.mark.parametrize(("interval", "expected"), [(5, 1.0), (60, 1.0), (90, 0.0), (1_440, 0.0)])
def test_lookbacks_fit_longer_bars(interval: int, expected: float) -> None:
    catalog = build_catalog(SETTINGS, COLUMNS, interval)
    assert catalog["has_original_prev_30_to_360min"].lookback == 360 // interval + 1
    step = pl.duration(minutes=interval) * pl.int_range(pl.len())
    bars = BARS.head(900).with_columns(time=pl.lit(BARS["time"][0]) + step)
    rows = compute(catalog, bars, sessions_of(bars["time"]))
    assert rows["has_original_prev_30_to_60min"][100:].unique().to_list() == [expected]
