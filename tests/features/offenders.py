"""Planted offenders: features that look ahead, and lookbacks declared too short."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from marketray.features.catalog import Catalog
from marketray.features.definition import Feature

C, H, T = pl.col("close"), pl.col("high"), pl.col("time")
RETURN = C / C.shift(1) - 1
MOVE = C.diff()
SPARSE = pl.when(T.dt.minute() % 5 == 3).then(C)  # a value in five minutes, as a slow second source has
INSIDE = pl.col("_session").is_not_null()  # over a null session would gather every bar outside sessions
HOUR = T.dt.truncate("1h")


def _join_on_open(frame: pl.Expr) -> pl.Expr:
    """Half-hour closes joined at the half hour's start instead of its end."""
    return C / frame.last().over(T.dt.truncate("30m")) - 1


LOOK_AHEAD: dict[str, tuple[int, pl.Expr]] = {
    "next_return": (1, C.shift(-1) / C - 1),
    "return_of_the_label": (1, C.shift(-30) / C - 1),
    "lag_with_wrong_sign": (6, RETURN.shift(-5)),
    "centred_mean": (21, C / C.rolling_mean(21, center=True) - 1),
    "centred_median": (11, C.rolling_median(11, center=True) - C),
    "back_filled": (1, SPARSE.backward_fill() - C),
    "back_filled_start": (5, C.rolling_mean(20).backward_fill() / C),
    "interpolated": (1, SPARSE.interpolate() - C),
    "full_sample_zscore": (1, (C - C.mean()) / C.std()),
    "full_sample_rank": (1, C.rank() / pl.len()),
    "full_sample_quantile": (1, C.gt(C.quantile(0.9)).cast(pl.Float64)),
    "full_sample_min_max": (1, (C - C.min()) / (C.max() - C.min())),
    "full_sample_median_fill": (1, pl.when(pl.col("_row") % 5 > 0).then(RETURN).fill_null(RETURN.median())),
    "full_sample_clip": (2, RETURN.clip(RETURN.quantile(0.01), RETURN.quantile(0.99))),
    "full_sample_bins": (2, RETURN.rank("ordinal") * 10 // pl.len()),
    "demeaned": (2, RETURN - RETURN.mean()),
    "reverse_cumulative_sum": (1, pl.col("volume").cum_sum(reverse=True)),
    "reverse_rolling_high": (1, H.reverse().rolling_max(10, min_samples=1).reverse() / C),
    "reverse_ewm": (1, C.reverse().ewm_mean(span=10, adjust=False).reverse() / C),
    "session_close": (1, C.last().over("_session") / C - 1),
    "session_high": (1, H.max().over("_session") / C - 1),
    "position_in_session": (1, pl.len().over("_session") - pl.col("_row")),
    "next_session_open": (
        1,
        pl.when(pl.col("_session") != pl.col("_session").shift(-1)).then(MOVE.shift(-1)),
    ),
    "five_minute_high": (1, H.max().over(T.dt.truncate("5m")) / C - 1),
    "hour_labelled_at_start": (1, C.last().over(HOUR) / pl.col("open").first().over(HOUR) - 1),
    "join_on_the_open": (1, _join_on_open(C)),
    "mean_by_hour": (2, RETURN - RETURN.mean().over(T.dt.hour())),
    "volume_share_of_day": (1, pl.col("volume") / pl.col("volume").sum().over(T.dt.date())),
    "days_extreme_known": (1, C.eq(C.max().over(T.dt.date())).cast(pl.Float64)),
    "minutes_to_next_bar": (1, (T.shift(-1) - T).dt.total_microseconds() / 60e6),
    "differenced_forward": (1, -C.diff(-1) / C),
    "next_gap_at_large_move": (2, pl.when(RETURN.abs() > 0.05).then(RETURN.shift(-1)).otherwise(RETURN)),
}
"""Name -> declared lookback and an expression that uses bars after its own."""

TOO_SHORT: dict[str, tuple[int, pl.Expr]] = {
    "mean_short_by_one": (19, C.rolling_mean(20) / C),
    "partial_mean": (15, C.rolling_mean(20, min_samples=1) / C),
    "partial_high_short_by_one": (19, H.rolling_max(20, min_samples=1) / C),
    "return_window_short_by_one": (20, RETURN.rolling_std(20)),
    "lag_of_return": (5, RETURN.shift(5)),
    "ema_with_window_as_lookback": (20, C.ewm_mean(span=20, adjust=False) / C - 1),
    "wilder_mean_short": (100, MOVE.ewm_mean(alpha=1 / 14, adjust=False)),
    "since_the_beginning": (500, C / C.first() - 1),
    "cumulative_volume": (60, pl.col("volume").cum_sum()),
    "expanding_high": (100, C / C.cum_max() - 1),
    "half_a_session": (700, C / pl.col("open").first().over("_session") - 1),
    "row_number": (1, pl.col("_row").cast(pl.Float64)),
}
"""Name -> declared lookback and an expression that depends on more bars."""

HONEST: dict[str, tuple[int, pl.Expr]] = {
    "polars_mean": (20, C.rolling_mean(20) / C - 1),
    "polars_deviation": (21, RETURN.rolling_std(20)),
    "polars_high": (30, C / H.rolling_max(30) - 1),
    "polars_low_partial": (30, C / pl.col("low").rolling_min(30, min_samples=1) - 1),
    "polars_quantile": (60, C / C.rolling_quantile(0.9, window_size=60) - 1),
    "polars_skew": (61, RETURN.rolling_skew(60)),
    "polars_ema": (400, C.ewm_mean(span=20, adjust=False) / C - 1),
    "rank_in_window": (50, C.rolling_rank(50)),
    "forward_filled": (60, SPARSE.forward_fill() / C - 1),
    "hour_so_far": (60, C / pl.col("open").first().over(HOUR) - 1),
    "session_high_so_far": (1_440, pl.when(INSIDE).then(H.cum_max().over("_session") / C - 1)),
    "to_the_close": (1, (pl.col("_close_at") - pl.col("_decision_at")).dt.total_minutes()),
    "constant": (1, pl.lit(1.0)),
    "threshold": (2, (RETURN > 0.0002).cast(pl.Float64)),
    "of_other_features": (241, pl.col("return_240") - pl.col("return_2")),
}
"""Name -> declared lookback and an expression that no audit may accuse."""


def planted(catalog: Catalog, *families: dict[str, tuple[int, pl.Expr]]) -> Catalog:
    """The catalog with only the given features; they may use those of the catalog."""
    entries = {name: entry for family in families for name, entry in family.items()}
    bars = ("volume", "bid", "ask")
    features = tuple(
        Feature(name, "planted", lookback, e, formula="-", source="-", inputs=bars)
        for name, (lookback, e) in entries.items()
    )
    last = tuple(e.alias(name) for name, (_, e) in entries.items())
    return replace(catalog, features=features, layers=(*catalog.layers, last), fitted=())
