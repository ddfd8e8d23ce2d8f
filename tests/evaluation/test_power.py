"""What skill the gate's test finds, how often: losses as they are, and in units of risk."""

from __future__ import annotations

import numpy as np
import pytest

from marketray.evaluation.gate import level_of_opening
from marketray.evaluation.metrics import r2_oos
from marketray.evaluation.significance import diebold_mariano, scaled_diebold_mariano
from marketray.evaluation.volatility import fit_scale
from tests.evaluation.simulations import HORIZON, fading, market, simulated_block

MINUTE = 60_000_000
FIRST = level_of_opening(0.05, 1)
"""Level of the first opening of the OOT rows."""

Array = np.ndarray


def found(y: Array, forecast: Array, scale: Array, us: Array) -> tuple[bool, bool]:
    """Whether skill over zero is found on these rows: by the plain test, and by the scaled one."""
    losses = (y - forecast) ** 2, y**2
    better = r2_oos(y, forecast, np.zeros_like(y)) > 0
    plain = diebold_mariano(*losses, us, HORIZON).p_value
    scaled = scaled_diebold_mariano(*losses, scale, us, HORIZON).p_value
    return better and plain < FIRST, better and scaled < FIRST


def power(paths: int, n: int, r2: float, seed: int) -> Array:
    """Shares of `found` in simulations; the forecasts grow with the volatility and fade over the horizon."""
    rng = np.random.default_rng(seed)
    noise, scale = market(rng, n, paths)
    forecast = scale * fading(rng, n, paths)
    forecast *= np.sqrt(r2 / (1 - r2) * np.mean(noise**2) / np.mean(forecast**2))
    us = np.arange(n) * MINUTE
    y = noise + forecast
    return np.mean([found(y[:, k], forecast[:, k], scale[:, k], us) for k in range(paths)], axis=0)


def test_most_skill_of_five_percent_is_found_in_twelve_thousand_rows() -> None:
    small, goal = (power(100, 12_000, r2, seed=3) for r2 in (0.015, 0.05))
    assert goal[1] >= 0.75
    assert goal[1] > goal[0] + 0.05
    assert (small < goal).all()


def simulated_power(bars: int, rows: int, r2: float, seeds: tuple[int, ...]) -> tuple[int, Array]:
    """Number of spans of the embedded simulator, and shares of `found` for the oracle's own forecasts.

    The volatility forecast is fitted on the spans before, as the gate's is on the training rows.
    """
    spans = []
    for seed in seeds:
        block, oracle = simulated_block(seed, bars, "market", r2)
        train = len(block) // 10
        scale = fit_scale(block.take(slice(None, train))).of(block)
        for start in range(train, len(block) - rows + 1, rows):
            at = slice(start, start + rows)
            spans.append(found(block.y[at], oracle[at], scale[at], block.decision_us[at]))
    return len(spans), np.mean(spans, axis=0)


@pytest.mark.slow
def test_power_on_the_simulator_is_eighty_percent_at_the_sizes_that_are_promised() -> None:
    for r2, rows, bars, seeds in ((0.05, 12_000, 2_000_000, (1, 2)), (0.01, 60_000, 4_200_000, (3, 4))):
        spans, share = simulated_power(bars, rows, r2, seeds)
        print(f"R2 {r2:.3f}, {rows:,} rows, {spans} spans: plain {share[0]:.3f}, scaled {share[1]:.3f}")
        assert share[1] >= 0.8


@pytest.mark.slow
def test_power_grows_with_skill() -> None:
    curve = np.array([power(300, 12_000, r2, seed=4) for r2 in (0.01, 0.025, 0.04, 0.05, 0.075)])
    print("power at 12,000 rows, plain and scaled", curve.round(3).tolist())
    assert (np.diff(curve, axis=0) > 0).all()
    assert (curve[:, 1] > curve[:, 0]).all()
