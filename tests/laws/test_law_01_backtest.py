"""Law 1, trades: what was known at a decision cannot be bought or sold at; fills come after it."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from marketray.evaluation.backtest import backtest_section
from marketray.settings import Settings, load_settings
from tests.dataset.synthetic import xnys_bars

MINUTE = 60_000_000


def settings_of(rule: str) -> Settings:
    market = {"calendar": "XNYS", "breaks": []}
    rules = {"spread_bps": 1.0, "threshold_return": 0.0, "position": rule}
    return load_settings(overrides={"market": market, "backtest": rules})


@pytest.mark.parametrize("rule", ["average", "latest"])
def test_no_price_up_to_the_decision_is_traded(rule: str) -> None:
    settings, rng = settings_of(rule), np.random.default_rng(0)
    bars = xnys_bars(date(2024, 11, 26), date(2024, 11, 29))
    opens = bars["close"].to_numpy() * np.exp(rng.normal(0, 1e-3, bars.height))
    bars = bars.select("time", "close", open=pl.Series(opens))
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    for k in (10, 200, 600):
        forecast = {"test": (ends[k : k + 1], np.array([0.01]))}
        noise = np.where(ends <= ends[k], np.exp(rng.uniform(-1, 1, bars.height)), 1.0)
        noisy = bars.with_columns(pl.col("open", "close") * pl.Series(noise))
        found = backtest_section(settings, bars, forecast)
        assert found["periods"]["test"]["strategy"]["trades"] == 1
        assert backtest_section(settings, noisy, forecast) == found


def test_a_forecast_that_knows_the_next_open_earns_nothing() -> None:
    settings, rng = settings_of("latest"), np.random.default_rng(1)
    settings = settings.model_copy(
        update={"labels": settings.labels.model_copy(update={"horizon_minutes": 1})}
    )
    bars = xnys_bars(date(2024, 11, 26), date(2024, 11, 29)).select("time")
    jump = rng.choice(
        [-1e-3, 1e-3], bars.height
    )  # from each close to the next open; bars themselves are flat
    price = 100 * np.exp(np.cumsum(np.roll(jump, 1)))
    bars = bars.with_columns(open=pl.Series(price), close=pl.Series(price))
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    found = backtest_section(settings, bars, {"test": (ends[:-2], jump[:-2])})["periods"]["test"]["strategy"]
    assert abs(found["gross_pct"]) < 20  # of more than 70 that lay between the closes and the next opens
    assert found["exposure"] > 0.9
