"""Stylised facts of the simulated bars."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from marketray.ingest.sources.simulator_market import volatility_profile
from marketray.settings import SimulatorSource
from tests.ingest.simulated import CMES, Simulated, collect


@pytest.fixture(scope="module")
def data() -> Simulated:
    return collect(SimulatorSource(bars=400_000, effect="none", seed=11), CMES)


@pytest.fixture(scope="module")
def log_range(data: Simulated) -> pl.DataFrame:
    local = pl.col("time").dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    frame = data.bars.select(
        "time", (pl.col("high").log() - pl.col("low").log()).log().alias("value")
    ).with_columns(
        pl.Series("session", data.session),
        local.dt.offset_by("-18h").dt.strftime("%H:%M").alias("minute"),
    )  # fmt: skip
    return frame.with_columns((pl.col("value") - pl.col("value").mean().over("minute")).alias("rest"))


def test_prices_are_sane(data: Simulated) -> None:
    low, high = pl.min_horizontal("open", "close"), pl.max_horizontal("open", "close")
    sane = data.bars.select(
        (pl.col("low") > 0) & (pl.col("low") <= low) & (high <= pl.col("high"))
        & (pl.col("low") < pl.col("high"))
        & (pl.col("bid") < pl.col("close")) & (pl.col("close") < pl.col("ask"))
        & (pl.col("volume") >= 1) & (pl.col("volume") == pl.col("volume").round())
    )  # fmt: skip
    assert sane.to_series().all()


def test_imbalance_is_uniform_and_independent_in_time(data: Simulated) -> None:
    x = (
        data.bars.select((pl.col("close") - pl.col("open")) / (pl.col("high") - pl.col("low")))
        .to_series()
        .to_numpy()
    )
    assert stats.kstest(x, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / np.sqrt(len(x))


def test_volatility_is_u_shaped_over_the_session(log_range: pl.DataFrame) -> None:
    by_hour = (
        log_range.with_columns(pl.col("minute").str.head(2).cast(pl.Int32).alias("hour"))
        .group_by("hour").agg(pl.col("value").mean().exp()).sort("hour")["value"].to_numpy()
    )  # fmt: skip
    assert len(by_hour) == 23
    expected = volatility_profile((np.arange(23) + 0.5) / 23)
    # short sessions and slow volatility leave a few per cent
    np.testing.assert_allclose(by_hour / by_hour.mean(), expected / expected.mean(), rtol=0.1)
    assert min(by_hour[0], by_hour[-1]) > 1.5 * by_hour[11]


def test_profile_has_mean_square_one() -> None:
    fraction = (np.arange(100_000) + 0.5) / 100_000
    assert np.mean(volatility_profile(fraction) ** 2) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("lag", "expected"), [(1, 0.36), (60, 0.32), (300, 0.20)])
def test_volatility_clusters(log_range: pl.DataFrame, lag: int, expected: float) -> None:
    """Log ranges are an AR(1) of 0.998 a minute, sd 0.3, under noise of sd 0.4: 0.36 * 0.998^lag."""
    pair = log_range.with_columns(pl.col("rest").shift(lag).over("session").alias("before")).drop_nulls()
    assert np.corrcoef(pair["rest"], pair["before"])[0, 1] == pytest.approx(expected, abs=0.07)


def test_returns_have_fat_tails(data: Simulated) -> None:
    body = (data.bars["close"] / data.bars["open"] - 1).to_numpy()
    assert 4.5 < stats.kurtosis(body, fisher=False) < 8  # 1.8 e^0.36 e^0.64 times the U-shape's
    assert stats.kurtosis(data.labels()[1], fisher=False) > 4.0
    assert abs(stats.skew(body)) < 0.1


def test_daily_volatility_is_that_of_a_stock_index(data: Simulated) -> None:
    close = data.bars.with_columns(pl.Series("session", data.session)).group_by(
        "session", maintain_order=True
    )
    daily = close.agg(pl.col("close").last())["close"].log().diff().drop_nulls().to_numpy()
    assert 0.006 < daily.std() < 0.016


@pytest.mark.parametrize(("column", "least"), [("volume", 0.8), ("spread", 0.8)])
def test_volume_and_spread_follow_volatility(data: Simulated, column: str, least: float) -> None:
    frame = data.bars.with_columns(((pl.col("ask") - pl.col("bid")) / pl.col("close")).alias("spread"))
    size = (frame["high"] - frame["low"]) / frame["open"]
    assert stats.spearmanr(size, frame[column]).statistic > least
    assert 2e-5 < frame["spread"].median() < 2e-4


def test_closed_hours_make_gaps(data: Simulated) -> None:
    gap = (data.bars["open"] / data.bars["close"].shift(1) - 1).to_numpy()[1:]
    overnight = np.diff(data.session) != 0
    assert np.std(gap[overnight]) > 1e-4
    np.testing.assert_allclose(gap[~overnight], 0.0, atol=1e-12)  # no effect, no drift between bars
