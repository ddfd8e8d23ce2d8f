"""Candle features against NumPy, TA-Lib's engulfing pattern, loops, and candles known by heart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import talib

from marketray.features.kernel import compute
from tests.features.market import sessions_of
from tests.features.quoted import BARS, CATALOG, OPEN, C, H, L, assert_formula, lagged, still_row, with_depth

BODY, TOP, BOTTOM = np.abs(C - OPEN), np.maximum(OPEN, C), np.minimum(OPEN, C)


def runs() -> np.ndarray:
    found, run = [], 0
    for sign in np.sign(np.diff(C, prepend=np.nan)):
        run = run + 1 if found and sign == np.sign(found[-1]) else 1
        found.append(sign * min(run, 10))
    return np.array(found)


def inside() -> np.ndarray:
    return ((lagged(H) >= H) & (lagged(L) <= L)).astype(float)


def shape(long: np.ndarray, short: np.ndarray) -> np.ndarray:
    return ((long >= 2 * BODY) & (short <= 0.1 * (H - L))).astype(float)


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "candle_body": lambda: C / C - OPEN / C,
    "previous_body": lambda: 1 - lagged(OPEN) / lagged(C),
    "upper_shadow": lambda: (H - TOP) / C,
    "lower_shadow": lambda: (BOTTOM - L) / C,
    "body_share": lambda: BODY / (H - L),
    "close_location": lambda: 2 * (C - L) / (H - L) - 1,
    "is_doji": lambda: (BODY / (H - L) < 0.1).astype(float),
    "is_hammer": lambda: shape(BOTTOM - L, H - TOP),
    "is_shooting_star": lambda: shape(H - TOP, BOTTOM - L),
    "engulfing": lambda: talib.CDLENGULFING(OPEN, H, L, C) / 100,
    "inside_bar": inside,
    "run_length_10": runs,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def candle_row(*candles: tuple[float, float, float, float]) -> dict[str, float]:
    """The last of some candles (open, high, low, close) after ordinary ones."""
    head = BARS.head(40)
    last = pl.DataFrame(candles, schema=["open", "high", "low", "close"], orient="row")
    times = BARS["time"].slice(40, len(candles))
    bars = with_depth(
        pl.concat([head, head.head(len(candles)).with_columns(last.get_columns()).with_columns(times)]), 1
    )
    return compute(CATALOG, bars, sessions_of(bars["time"])).row(-1, named=True)


def test_shapes_known_by_heart() -> None:
    hammer = candle_row((10.0, 10.1, 9.0, 10.1))
    assert (hammer["is_hammer"], hammer["is_shooting_star"], hammer["is_doji"]) == (1, 0, 1)
    star = candle_row((10.0, 11.0, 10.0, 10.2))
    assert (star["is_hammer"], star["is_shooting_star"], star["is_doji"]) == (0, 1, 0)
    assert star["close_location"] == pytest.approx(-0.6)
    assert star["body_share"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("candles", "expected"),
    [
        (((10.0, 10.0, 9.0, 9.0), (8.9, 10.2, 8.9, 10.1)), 1.0),
        (((9.0, 10.0, 9.0, 10.0), (10.1, 10.1, 8.8, 8.9)), -1.0),
        (((10.0, 10.0, 9.0, 9.0), (9.1, 10.2, 8.9, 10.1)), 0.0),  # opens inside the body before
        (((9.0, 10.0, 9.0, 10.0), (9.0, 10.2, 8.9, 10.1)), 0.0),  # both rise
    ],
)
def test_engulfing(candles: tuple[tuple[float, float, float, float], ...], expected: float) -> None:
    assert candle_row(*candles)["engulfing"] == expected


def test_a_run_is_capped_and_starts_again_after_an_equal_close() -> None:
    rising = [(10.0 + k, 11.0 + k, 9.0 + k, 10.5 + k) for k in range(14)]
    assert candle_row(*rising)["run_length_10"] == 10
    assert candle_row(*rising[:4])["run_length_10"] == -1 + 4  # the first lies under the bars before
    assert candle_row(*rising, rising[-1])["run_length_10"] == 0
    assert candle_row(*rising, rising[-2])["run_length_10"] == -1


def test_still_bars() -> None:
    row = still_row()
    zero = set(FORMULAS) - {"inside_bar"}
    assert {name: row[name] for name in FORMULAS} == {**dict.fromkeys(zero, 0.0), "inside_bar": 1.0}
