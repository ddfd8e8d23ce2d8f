"""New volatility features against pandas and NumPy formulas; jumps and flat markets by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of
from tests.features.prices import C, H, L, assert_formula, flat_row, rolling

RETURN = np.concatenate([[np.nan], C[1:] / C[:-1] - 1])
LOG = np.concatenate([[np.nan], np.log(C[1:] / C[:-1])])


def deviation(n: int) -> np.ndarray:
    return rolling(RETURN, n).std().to_numpy()


def root_mean(squares: np.ndarray, n: int) -> np.ndarray:
    return np.sqrt(rolling(squares, n).mean()).to_numpy()


def semideviation(sign: int) -> np.ndarray:
    return root_mean(np.where(sign * LOG > 0, LOG**2, LOG * 0), 20)


def bipower() -> np.ndarray:
    """Sum over the neighbours inside each window of 60 returns, scaled to one bar."""
    inside = np.abs(np.lib.stride_tricks.sliding_window_view(LOG, 60))
    products = (inside[:, 1:] * inside[:, :-1]).sum(axis=1) / 59
    return np.concatenate([np.full(59, np.nan), np.sqrt(np.pi / 2 * products)])


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "return_sd_20": lambda: deviation(20),
    "return_sd_50": lambda: deviation(50),
    "realized_volatility_5": lambda: root_mean(LOG**2, 5),
    "realized_volatility_120": lambda: root_mean(LOG**2, 120),
    "parkinson_volatility_60": lambda: root_mean(np.log(H / L) ** 2, 60) / np.sqrt(4 * np.log(2)),
    "volatility_of_volatility_20": lambda: rolling(deviation(20), 20).std().to_numpy(),
    "volatility_ratio_20_50": lambda: deviation(20) / deviation(50),
    "range_mean_20": lambda: rolling((H - L) / C, 20).mean().to_numpy(),
    "down_volatility_20": lambda: semideviation(-1),
    "up_volatility_20": lambda: semideviation(1),
    "bipower_volatility_60": bipower,
    "jump_share_60": lambda: np.maximum(0, 1 - bipower() ** 2 / root_mean(LOG**2, 60) ** 2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


@pytest.mark.parametrize("name", FORMULAS)
def test_a_market_that_does_not_move_has_the_stated_neutral_value(name: str) -> None:
    assert flat_row()[name] == (1.0 if name == "volatility_ratio_20_50" else 0.0)


def test_a_single_jump_is_nearly_all_of_the_variance() -> None:
    bars = make_bars(1_600, seed=5)  # one bar of 8 % up at 800, one of 8 % down after it
    catalog = build_catalog(FeatureSettings(groups=("volatility",)), COLUMNS)
    rows = compute(catalog, bars, sessions_of(bars["time"]))
    assert rows["jump_share_60"][800] > 0.9
    assert rows["jump_share_60"][799] < 0.6
