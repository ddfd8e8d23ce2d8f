"""Every operation of the row's program against Polars, on values with nulls, NaN, infinities and ties."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from marketray.features.demand import Demand
from marketray.features.tree import Graph
from marketray.features.windows import (
    absolute_deviation,
    bars_since_maximum,
    mean_size,
    root_mean_square,
    share_at_most,
    weighted_sum,
)

A, B, C = pl.col("a"), pl.col("b"), pl.col("c")
TIME, AT, OPEN = pl.col("time"), pl.col("_decision_at"), pl.col("_open_at")
ROWS = 60


def table(seed: int, *, rare: bool) -> pl.DataFrame:
    """Seeded columns a, b (some 0, some equal) and c (above 0), sessions and times; `rare` adds the rest."""
    rng = np.random.default_rng(seed)
    values = {name: np.round(rng.normal(0, 2, ROWS), 1) for name in "ab"}
    values["c"] = np.exp(rng.normal(0, 1, ROWS))
    values["a"][20:30] = values["a"][19]
    gone = {name: rng.random(ROWS) < (0.15 if rare else 0.0) for name in values}
    if rare:
        for column in values.values():
            column[rng.integers(0, ROWS, 3)] = [math.nan, math.inf, -math.inf]
    start = datetime(2024, 2, 27, 22, 7, tzinfo=UTC)
    steps = np.cumsum(rng.integers(1, 500, ROWS))
    times = [start + timedelta(minutes=int(m)) for m in steps]
    session = [k // 9 if not rare or k // 9 != 3 else None for k in range(ROWS)]
    frame = pl.DataFrame(
        {
            "time": times,
            **values,
            "_session": session,
            "_row": range(ROWS),
            "_decision_at": [t + timedelta(minutes=1) for t in times],
            "_open_at": [None if s is None else times[9 * s] for s in session],
        },
        schema_overrides={name: pl.Datetime("us", "UTC") for name in ("time", "_decision_at", "_open_at")},
    )
    known = [pl.when(~pl.Series(gone[name])).then(name).alias(name) for name in values]
    return frame.with_columns(known)


POINTWISE = {
    "plus": A + B,
    "minus": A - B * 2,
    "times": A * (B > 0),
    "a flag less": A - (B > 0),
    "a flag more": (B > 0) + A,
    "over": A / B,
    "over a constant": A / 3,
    "constant over": 3 / A,
    "constants": A * (pl.lit(7) / 2 - 1.5),
    "greater": A > B,
    "greater or equal": A >= B,
    "less": A < B,
    "less or equal": A <= B,
    "equal": A == B,
    "above a constant": A > 0,
    "differs": A.ne_missing(B),
    "differs from its lag": A.ne_missing(A.shift(1)),
    "both": (A > 0) & (B > 0),
    "either": (A > 0) | (B > 0),
    "neither": ~((A > 0) | (B > 0)),
    "when": pl.when(A > 0).then(B),
    "when otherwise": pl.when(A > B).then(1).otherwise(C),
    "when again": pl.when(A > 0).then(B).when(A == 0).then(0.5).otherwise(A),
    "lower": A.clip(lower_bound=0),
    "upper": A.clip(upper_bound=0.5),
    "within": A.clip(-1, 1),
    "size": A.abs(),
    "opposite": -A,
    "sign": A.sign(),
    "root": A.sqrt(),
    "square": A**2,
    "logarithm": A.log(),
    "logarithm of what is above 0": C.log(),
    "sine": A.sin(),
    "cosine": A.cos(),
    "tanh": A.tanh(),
    "largest": pl.max_horizontal(A, B, C),
    "smallest": pl.min_horizontal(A, B, C),
    "known": A.is_not_null(),
    "unknown": A.is_null(),
    "filled": (A > 0).fill_null(value=False),
    "between": A.is_between(B, C),
    "half open": A.is_between(-1, 1, closed="left"),
    "open": A.is_between(-1, 1, closed="none"),
    "lag": A.shift(3),
    "change": A.diff(),
    "change of a lag": A.shift(2).diff(3),
    "hour": AT.dt.hour().cast(pl.Float64) + AT.dt.minute() / 60,
    "weekday": AT.dt.weekday() - 1,
    "month": AT.dt.month().cast(pl.Int64) * 100 + AT.dt.day().cast(pl.Int64),
    "quarter": AT.dt.quarter() == 2,
    "share of the month": AT.dt.day() / AT.dt.days_in_month(),
    "elapsed": (AT - OPEN).dt.total_microseconds() / 60e6,
    "pause": (pl.col("time").diff() - pl.duration(minutes=1)).dt.total_microseconds() // 60_000_000 % 7,
    "wall clock": AT.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None).dt.timestamp("us")
    // 60_000_000,
}

LOOKING_BACK = {
    "mean": A.rolling_mean(5),
    "sum": A.rolling_sum(5),
    "max": A.rolling_max(5),
    "min": A.rolling_min(5),
    "variance": A.rolling_var(5, ddof=0),
    "deviation": A.rolling_std(5),
    "median": A.rolling_median(6),
    "quantile": A.rolling_quantile(0.3, interpolation="linear", window_size=7),
    "mean of one": A.rolling_mean(1),
    "means of means": A.rolling_mean(4).rolling_max(3).rolling_mean(5),
    "deviation of medians": A.rolling_median(3).rolling_std(5),
    "mean size": mean_size(C, 7),
    "root mean square": root_mean_square(A, 6),
    "recursive": A.ewm_mean(span=5, adjust=False),
    "recursive, adjusted": A.ewm_mean(alpha=0.2, adjust=True),
    "recursive over nulls": A.ewm_mean(alpha=0.2, adjust=False, ignore_nulls=True),
    "recursive twice": C.ewm_mean(span=3, adjust=False).ewm_mean(span=4, adjust=False),
    "recursive deviation": C.ewm_std(span=5, adjust=True, bias=False, ignore_nulls=True),
    "weighted": weighted_sum(A, np.arange(4.0)),
    "weighted, otherwise": weighted_sum(A, np.arange(5.0)),
    "age": bars_since_maximum(A, 5).diff(),
    "dispersion": absolute_deviation(A.clip(-9, 9), 5),
    "rank": share_at_most(C, 6, 2),
    "sum so far": A.cum_sum().over("_session"),
    "highest so far": A.cum_max().over("_session"),
    "lowest so far": A.cum_min().over("_session"),
    "lowest so far, at several bars": A.cum_min().over("_session").rolling_mean(2),
    "first": A.first().over("_session"),
    "bars so far": pl.when(pl.col("_session").is_not_null()).then(
        pl.int_range(1, pl.len() + 1).over("_session")
    ),
    "filled forward": A.forward_fill(),
    "filled from the edge": pl.when(A.sign().ne_missing(A.sign().shift(1)))
    .then(pl.col("_row"))
    .forward_fill(),
    "filled forward, at several bars": A.forward_fill().rolling_sum(3),
    "count between": TIME.search_sorted(TIME - pl.duration(hours=1), side="right").cast(pl.Int64)
    - TIME.search_sorted(TIME - pl.duration(days=1), side="right").cast(pl.Int64),
}


def last(expression: pl.Expr, frame: pl.DataFrame, lookback: int) -> list[float]:
    """The expression, and whether it is null, at the last row."""
    graph = Graph({"x": expression, "known": pl.col("x").is_not_null()})
    program = Demand(graph, [(graph.column("x"), lookback), (graph.column("known"), lookback)])
    return [float(x) for x in program.last(frame)]


def check(expression: pl.Expr, frame: pl.DataFrame, *, nulls: bool = True) -> None:
    """Equality with Polars at every row, in values and in what is null."""
    expected = frame.select(x=expression)["x"]
    known = expected.is_not_null().to_list()
    values = expected.cast(pl.Float64).fill_null(math.nan).to_list()
    for size in range(1, ROWS + 1):
        got, shown = last(expression, frame.head(size), ROWS)
        if nulls:
            assert shown == known[size - 1], size
        np.testing.assert_allclose(got, values[size - 1], rtol=1e-12, atol=1e-12, err_msg=str(size))


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("name", POINTWISE)
def test_operations_of_a_row(name: str, rare: bool) -> None:
    check(POINTWISE[name], table(3, rare=rare))


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("name", LOOKING_BACK)
def test_operations_over_rows(name: str, rare: bool) -> None:
    check(LOOKING_BACK[name], table(4, rare=rare))
