"""Shapes of single candles, and of a candle beside the one before it."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature

__all__ = ["candle_columns", "candles"]

_GROUP = "candles"
_LONGEST_RUN = 10
_NISON = "Nison 1991"


def candle_columns() -> dict[str, pl.Expr]:
    """Shared columns: heights of the body and of the two shadows, in price."""
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    return {
        "_range": pl.col("high") - pl.col("low"),
        "_height": top - bottom,
        "_upper": pl.col("high") - top,
        "_lower": bottom - pl.col("low"),
        "_direction": (pl.col("close") - pl.col("_previous_close")).sign(),
    }


def candles() -> list[Feature]:
    """All candle features."""
    return [*_parts(), *_shapes(), *_pairs(), _run()]


def _candle(name: str, lookback: int, value: pl.Expr, formula: str, source: str, unit: str) -> Feature:
    return Feature(name, _GROUP, lookback, value, formula, source, unit, exact=True)


def _parts() -> list[Feature]:
    close, span = pl.col("close"), pl.col("_range")
    inside = close - pl.col("low") - (pl.col("high") - close)
    share = pl.when(span > 0).then(pl.col("_height") / span).when(span == 0).then(0.0)
    location = pl.when(span > 0).then(inside / span).when(span == 0).then(0.0)
    source, fraction = "candlestick", "fraction"
    return [
        _candle("candle_body", 1, pl.col("_body"), "(C - O) / C", source, fraction),
        _candle("previous_body", 2, pl.col("_body").shift(1), "candle_body one bar ago", source, fraction),
        _candle("upper_shadow", 1, pl.col("_upper") / close, "(H - max(O, C)) / C", source, fraction),
        _candle("lower_shadow", 1, pl.col("_lower") / close, "(min(O, C) - L) / C", source, fraction),
        _candle(
            "body_share", 1, share, "|C - O| / (H - L); 0 where H = L", source, "share of the range, 0 to 1"
        ),
        _candle(
            "close_location",
            1,
            location,
            "(2 C - H - L) / (H - L); 0 where H = L",
            "close location value, Chaikin",
            "share of the range, -1 to 1",
        ),
    ]


def _shapes() -> list[Feature]:
    span, height = pl.col("_range"), pl.col("_height")
    upper, lower = pl.col("_upper"), pl.col("_lower")
    doji = (span > 0) & (height < 0.1 * span)
    hammer = (span > 0) & (lower >= 2 * height) & (upper <= 0.1 * span)
    star = (span > 0) & (upper >= 2 * height) & (lower <= 0.1 * span)
    shadows = "{} shadow >= 2 |C - O|, {} shadow <= 0.1 (H - L), H > L"
    shapes = [
        ("is_doji", doji, "1 where |C - O| < 0.1 (H - L), else 0"),
        ("is_hammer", hammer, f"1 where {shadows.format('lower', 'upper')}, else 0"),
        ("is_shooting_star", star, f"1 where {shadows.format('upper', 'lower')}, else 0"),
    ]
    return [_candle(name, 1, flag.cast(pl.Float64), text, _NISON, "0 or 1") for name, flag, text in shapes]


def _pairs() -> list[Feature]:
    opened, close, earlier = pl.col("open"), pl.col("close"), pl.col("open").shift(1)
    previous = pl.col("_previous_close")
    bullish = (previous < earlier) & (close > opened) & (opened <= previous) & (close >= earlier)
    bearish = (previous > earlier) & (close < opened) & (opened >= previous) & (close <= earlier)
    inside = (pl.col("high") <= pl.col("high").shift(1)) & (pl.col("low") >= pl.col("low").shift(1))
    return [
        _candle(
            "engulfing",
            2,
            bullish.cast(pl.Float64) - bearish.cast(pl.Float64),
            "1 where a rising body covers the falling one before it, -1 the other way round, else 0",
            _NISON,
            "-1, 0 or 1",
        ),
        _candle(
            "inside_bar",
            2,
            inside.cast(pl.Float64),
            "1 where H <= H[-1] and L >= L[-1], else 0",
            "inside bar",
            "0 or 1",
        ),
    ]


def _run() -> Feature:
    direction = pl.col("_direction")
    turned = pl.when(direction.ne_missing(direction.shift(1))).then(pl.col("_row")).forward_fill()
    length = (pl.col("_row") - turned + 1).clip(upper_bound=_LONGEST_RUN)
    return _candle(
        f"run_length_{_LONGEST_RUN}",
        _LONGEST_RUN + 1,
        direction * length,
        f"sign(C - C[-1]) times the closes in a row with that sign, at most {_LONGEST_RUN}",
        "runs of price changes",
        f"-{_LONGEST_RUN} to {_LONGEST_RUN}",
    )
