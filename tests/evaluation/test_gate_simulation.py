"""Fitted candidates before the gate, run after run: without an effect hardly one is promoted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from marketray.evaluation.gate import decide
from marketray.evaluation.metrics import rmse
from marketray.evaluation.selection import rank
from marketray.evaluation.volatility import fit_scale
from marketray.models import get_family
from marketray.settings_gate import GateSettings
from tests.evaluation.simulations import HORIZON, simulated_block

BARS = 10_000
GAP = 2 * HORIZON
CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "ar_5": ("ar", {"lags": 5, "exogenous": "none", "ridge": 0.0}),
    "ar_30": ("ar", {"lags": 30, "exogenous": "none", "ridge": 1.0}),
    "ridge_30": ("ar", {"lags": 30, "exogenous": "volatility", "ridge": 0.1}),
}


def promoted(seed: int, effect: str, r2: float) -> bool:
    """Whether the best candidate on test rows, fitted on those before, passes the gate on the rows after."""
    block, _ = simulated_block(seed, BARS, effect, r2, lags=30)
    first, last = int(0.6 * len(block)), int(0.75 * len(block))
    train = block.take(slice(None, first - GAP))
    test, oot = block.take(slice(first, last - GAP)), block.take(slice(last, None))
    models = {}
    for name, (family, params) in CANDIDATES.items():
        columns = get_family(family).columns(block.columns)
        models[name] = get_family(family).fit(
            params, columns, train.select(columns).values, train.y, threads=1, seed=0
        )
    forecasts = {name: model.predict(test.select(model.columns).values) for name, model in models.items()}
    errors = {name: rmse(test.y, values) for name, values in forecasts.items()}
    best = models[rank(test.y, forecasts, errors, test.decision_us, HORIZON)[0]]
    evidence = decide(
        oot.y,
        best.predict(oot.select(best.columns).values),
        oot.decision_us,
        HORIZON,
        gate=GateSettings(),
        k=1,
        scale=fit_scale(train).of(oot),
    )
    return evidence.verdict == "promoted"


def promotions(seeds: Iterable[int], effect: str, r2: float) -> int:
    with threadpool_limits(1):  # small problems; several threads only get in each other's way
        return sum(promoted(seed, effect, r2) for seed in seeds)


def test_without_an_effect_hardly_a_run_is_promoted_and_with_a_strong_one_most_are() -> None:
    assert promotions(range(20), "none", 0.0) <= 2
    assert promotions(range(100, 106), "market", 0.3) >= 4


@pytest.mark.slow
def test_without_an_effect_at_most_16_of_200_runs_are_promoted() -> None:
    found = promotions(range(1_000, 1_200), "none", 0.0)
    print("promoted without an effect", found, "of 200")
    assert found <= 16
