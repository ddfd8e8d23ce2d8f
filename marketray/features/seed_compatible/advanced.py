"""The advanced set: 48 features of volume, the UTC clock, regimes and candles.

It also defined sma_50, volatility_20 and volatility_50, by the technical set's formulas: they stand there.
Where a value is undefined, the set carried the last one on, and 0 before the first; here it is null.
"""

from __future__ import annotations

import math
from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.seed_compatible.shared import flag
from marketray.features.windows import mean, standard_deviation

__all__ = ["seed_advanced"]

_make = partial(Feature, group="seed_advanced", source="seed-compatible")
_with_volume = partial(_make, inputs=("volume",))
_single = partial(_make, lookback=1, exact=True)
_flag = partial(_single, unit="flag")
_TICK = 0.0001  # the set adds it to ranges, in units of the price
_UNDEFINED = " (the set carried the last value on)"


def seed_advanced() -> list[Feature]:
    """All 48 advanced features."""
    return [
        *_microstructure(),
        *_volumes(),
        *_clock(),
        *_hours(),
        *_calendar(),
        *_trend(),
        *_volatility_regime(),
        *_volume_regime(),
        _stress(),
        *_candles(),
        *_levels(),
    ]


def _microstructure() -> list[Feature]:
    o, h, lo, c = (pl.col(name) for name in ("open", "high", "low", "close"))
    extreme = partial(_make, lookback=20, exact=True)
    return [
        extreme(
            name="distance_from_high_20",
            expression=(h.rolling_max(20) - c) / c,
            formula="(max H over 20 bars - C) / C",
        ),
        extreme(
            name="distance_from_low_20",
            expression=(c - lo.rolling_min(20)) / c,
            formula="(C - min L over 20 bars) / C",
        ),
        _single(
            name="position_in_range",
            expression=(c - lo) / (h - lo + _TICK),
            formula="(C - L) / (H - L + 0.0001)",
            unit="share of the range",
        ),
        _single(
            name="price_efficiency",
            expression=(c - o) / (h - lo + _TICK),
            formula="(C - O) / (H - L + 0.0001)",
            unit="share of the range",
        ),
        _single(name="high_low_ratio", expression=h / lo - 1, formula="H / L - 1"),
        _make(
            name="close_to_close_vol",
            lookback=21,
            expression=pl.col("volatility_20"),
            formula="sd of C / C[-1] - 1 over 20 bars, the same as volatility_20",
            unit="return per bar",
        ),
    ]


def _volumes() -> list[Feature]:
    traded, close = pl.col("volume"), pl.col("close")
    recent = pl.col("_volume_mean_20")
    untraded = f"null where nothing was traded over 20 bars{_UNDEFINED}"
    make = partial(_with_volume, unit="ratio", null_policy=untraded)
    return [
        _with_volume(
            name="price_weighted_volume",
            lookback=1,
            expression=close * traded,
            formula="C V",
            unit="price times volume",
            exact=True,
        ),
        make(
            name="volume_imbalance",
            lookback=20,
            expression=(traded - traded.shift(1)) / recent,
            formula="(V - V[-1]) / SMA20 of V",
        ),
        make(
            name="distance_from_vwap",
            lookback=20,
            expression=(close - pl.col("_vwap_20")) / pl.col("_vwap_20"),
            formula="(C - vwap) / vwap, the microstructure set's vwap",
            unit="fraction",
        ),
        make(
            name="volume_ratio_5_20",
            lookback=20,
            expression=mean(traded, 5) / recent,
            formula="SMA5 of V / SMA20 of V",
        ),
        make(
            name="abnormal_volume",
            lookback=50,
            expression=traded / pl.col("_volume_mean_50") - 1,
            formula="V / SMA50 of V - 1",
            null_policy=f"null where nothing was traded over 50 bars{_UNDEFINED}",
        ),
    ]


def _clock() -> list[Feature]:
    time = pl.col("time").dt
    parts = {
        "hour": (time.hour(), "hour of time, UTC", "hours"),
        "minute": (time.minute(), "minute of time", "minutes"),
        "day_of_week": (time.weekday() - 1, "weekday of time in UTC, 0 = Monday", "days"),
        "month": (time.month(), "month of time, UTC", "months"),
        "quarter": (time.quarter(), "quarter of time, UTC", "quarters"),
    }
    return [
        _single(name=name, expression=value.cast(pl.Float64), formula=formula, unit=unit)
        for name, (value, formula, unit) in parts.items()
    ]


def _hours() -> list[Feature]:
    hour, minute = pl.col("hour"), pl.col("minute")
    rules = {
        "is_us_premarket": (hour.is_between(8, 14), "hour in 8..14 UTC, all year round"),
        "is_us_regular": (hour.is_between(14, 20), "hour in 14..20 UTC, all year round"),
        "is_us_afterhours": ((hour >= 20) | (hour <= 1), "hour in 20..23 or 0..1 UTC, all year round"),
        "is_market_open": ((hour == 14) & (minute < 31), "14:00 to 14:30 UTC"),
        "is_market_close": ((hour == 20) & (minute >= 30), "20:30 to 20:59 UTC"),
    }
    return [_flag(name=name, expression=flag(rule), formula=text) for name, (rule, text) in rules.items()]


def _calendar() -> list[Feature]:
    day = pl.col("day_of_week")
    flags = [
        _flag(name=f"is_{name}", expression=flag(day == number), formula=f"{name.title()} in UTC")
        for name, number in (("monday", 0), ("friday", 4))
    ]
    angles = {"hour": pl.col("hour") * (2 * math.pi / 24), "dow": day * (2 * math.pi / 7)}
    terms = {"hour": "hour / 24", "dow": "day_of_week / 7"}
    waves = [
        _single(
            name=f"{name}_{wave}",
            expression=angle.sin() if wave == "sin" else angle.cos(),
            formula=f"{wave}(2 pi {terms[name]})",
            unit="-1 to 1",
        )
        for name, angle in angles.items()
        for wave in ("sin", "cos")
    ]
    return [*flags, *waves]


def _trend() -> list[Feature]:
    gap = pl.col("_above_mean_50") - pl.col("_above_mean_20")  # SMA20 - SMA50, exactly 0 on a flat stretch
    return [
        _make(
            name="sma_20",
            lookback=20,
            expression=pl.col("_mean_20"),
            formula="SMA20 of C, the same as bb_middle",
            unit="price",
        ),
        _make(
            name="trend_strength",
            lookback=50,
            expression=gap / pl.col("_mean_50"),
            formula="(SMA20 - SMA50) / SMA50 of C",
        ),
        _make(
            name="is_uptrend",
            lookback=50,
            expression=flag(gap > 0),
            formula="SMA20 > SMA50 of C",
            unit="flag",
        ),
    ]


def _volatility_regime() -> list[Feature]:
    short, long = pl.col("volatility_20"), pl.col("volatility_50")
    return [
        _make(
            name="volatility_ratio",
            lookback=51,
            expression=pl.when(long > 0).then(short / long),
            formula="volatility_20 / volatility_50",
            unit="ratio",
            null_policy=f"null where volatility_50 is 0{_UNDEFINED}",
        ),
        _make(
            name="high_volatility",
            lookback=51,
            expression=flag(pl.col("volatility_ratio") > 1.5),
            formula="volatility_ratio > 1.5",
            unit="flag",
            null_policy="0 where volatility_ratio is null",
        ),
    ]


def _volume_regime() -> list[Feature]:
    short, long = pl.col("_volume_mean_20"), pl.col("_volume_mean_50")
    averages = [
        _with_volume(
            name=f"volume_{n}",
            lookback=n,
            expression=pl.col(f"_volume_mean_{n}"),
            formula=f"SMA{n} of V, the same as volume_ma{n}",
            unit="volume",
        )
        for n in (20, 50)
    ]
    return [
        *averages,
        _with_volume(
            name="volume_regime",
            lookback=50,
            expression=pl.when(long > 0).then(short / long),
            formula="SMA20 of V / SMA50 of V",
            unit="ratio",
            null_policy=f"null where nothing was traded over 50 bars{_UNDEFINED}",
        ),
        _with_volume(
            name="high_volume",
            lookback=50,
            expression=flag(pl.col("volume_regime") > 1.2),
            formula="volume_regime > 1.2",
            unit="flag",
            null_policy="0 where volume_regime is null",
        ),
    ]


def _stress() -> Feature:
    level = pl.col("volatility_20")
    extreme = flag(level > mean(level, 252) + 2 * standard_deviation(level, 252))
    return _with_volume(
        name="market_stress",
        lookback=272,
        expression=0.5 * pl.col("high_volatility") + 0.3 * pl.col("high_volume") + 0.2 * extreme,
        formula="0.5 high_volatility + 0.3 high_volume + 0.2 [volatility_20 > its mean + 2 sd over 252 bars]",
        unit="index 0-1",
        null_policy="high_volume counts as 0 where volume_regime is null",
    )


def _candles() -> list[Feature]:
    o, h, lo, c = (pl.col(name) for name in ("open", "high", "low", "close"))
    body, before = pl.col("body_size"), pl.col("prev_body")
    top, bottom = pl.max_horizontal(o, c), pl.min_horizontal(o, c)
    hammer = (body < 0.002) & (pl.col("lower_shadow") > 2 * body)
    return [
        _single(name="body_size", expression=(c - o).abs() / o, formula="|C - O| / O"),
        _single(name="upper_shadow", expression=(h - top) / o, formula="(H - max(O, C)) / O"),
        _single(name="lower_shadow", expression=(bottom - lo) / o, formula="(min(O, C) - L) / O"),
        _flag(name="is_doji", expression=flag(body < 0.001), formula="body_size < 0.001"),
        _flag(
            name="is_hammer",
            expression=flag(hammer),
            formula="body_size < 0.002 and lower_shadow > 2 body_size",
        ),
        _single(name="prev_body", lookback=2, expression=body.shift(1), formula="body_size[-1]"),
        _flag(
            name="is_engulfing",
            lookback=2,
            expression=flag(body > before * 1.5),
            formula="body_size > 1.5 prev_body",
        ),
    ]


def _levels() -> list[Feature]:
    close = pl.col("close")
    highest, lowest = pl.col("high").rolling_max(20), pl.col("low").rolling_min(20)
    rules = {
        "near_20d_high": (close > highest * 0.98, "C > 0.98 max H over 20 bars (bars, not days)"),
        "near_20d_low": (close < lowest * 1.02, "C < 1.02 min L over 20 bars (bars, not days)"),
        "breakout_up": (close > highest, "C > max H over 20 bars, this one included: always 0"),
        "breakout_down": (close < lowest, "C < min L over 20 bars, this one included: always 0"),
    }
    return [
        _flag(name=name, lookback=20, expression=flag(rule), formula=text)
        for name, (rule, text) in rules.items()
    ]
