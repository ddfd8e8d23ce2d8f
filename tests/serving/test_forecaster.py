"""Served features and forecasts against the batch rows of the same bars."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import percentileofscore

from marketray.errors import DataError, ModelError
from marketray.evaluation.uncertainty import UNCERTAINTY_FILE, Uncertainty
from marketray.models import load_model
from marketray.models.extended import ExtendedModel
from marketray.serving.forecaster import Forecast, Forecaster
from marketray.serving.state import BAR_COLUMNS
from tests.serving.market import Market, write_card


@pytest.mark.parametrize("kind", ["xgboost", "direction", "ar"])
def test_forecast_equals_the_batch_row(market: Market, kind: str) -> None:
    served = Forecaster(market.folders[kind])
    bars = market.bars.select(BAR_COLUMNS)
    for end in (6_000, 7_321, 8_000):
        row = served.row(bars.head(end))
        batch = market.features.row(end - 1, named=True)
        expected = np.array([[np.nan if batch[c] is None else batch[c] for c in served.card.columns]])
        assert row.decision_at == batch["decision_at"]
        assert row.last_close == market.bars["close"][end - 1]
        np.testing.assert_array_equal(np.isnan(row.values), np.isnan(expected))
        np.testing.assert_allclose(row.values, expected, rtol=1e-5, atol=1e-9)
        answer = served.forecast(row)
        value = answer.probability_up if kind == "direction" else answer.predicted_return
        model = load_model(market.folders[kind])
        assert value == pytest.approx(model.predict(expected.astype(np.float32))[0], rel=1e-4, abs=1e-9)
        assert (answer.probability_up is None) == (kind != "direction")


@pytest.mark.parametrize("kind", ["xgboost", "direction"])
def test_intervals_equal_those_of_the_batch_row(
    market: Market, uncertain: dict[str, Path], kind: str
) -> None:
    """Live bars give what the evaluation's walk gives the same row at once after the fit."""
    served, stored = Forecaster(uncertain[kind]), Uncertainty.read(uncertain[kind])
    assert stored is not None
    block = market.block()
    for i in (5_100, 5_400):
        rows = block.take(slice(i, i + 1))
        prediction = served.model.predict(rows.select(served.model.columns).values)
        walked, _ = stored.walk(rows, prediction)
        decided = pl.col("time") + timedelta(minutes=1) <= rows.decision_at[0]
        answer = served.forecast(served.row(market.bars.select(BAR_COLUMNS).filter(decided)))
        assert answer.probability_up == pytest.approx(walked.probability_up[0], abs=1e-6)
        levels, low, high = zip(*answer.intervals, strict=True)
        assert levels == walked.levels
        np.testing.assert_allclose(low, walked.low[0], rtol=1e-3)
        np.testing.assert_allclose(high, walked.high[0], rtol=1e-3)


def test_an_uncertainty_of_another_label_is_refused(uncertain: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(uncertain["xgboost"], folder)
    value = json.loads((folder / UNCERTAINTY_FILE).read_text())
    (folder / UNCERTAINTY_FILE).write_text(json.dumps({**value, "horizon_minutes": 60}))
    with pytest.raises(ModelError, match="is of regression over 60 minutes; required: regression over 30"):
        Forecaster(folder)
    value["scale"]["columns"][0] = "volatility_of_elsewhere"
    (folder / UNCERTAINTY_FILE).write_text(json.dumps(value))
    with pytest.raises(ModelError, match=r"needs the features \['volatility_of_elsewhere'\]"):
        Forecaster(folder)


@pytest.mark.parametrize("kind", ["xgboost", "direction"])
def test_fitted_features_are_made_from_the_training_rows_the_model_has_seen(
    market: Market, kind: str
) -> None:
    """The rank of volatility in a served row, by SciPy from the batch rows of the training."""
    served = Forecaster(market.folders[kind])
    assert isinstance(served.model, ExtendedModel)
    made = {c.name: c for c in served.model.fitted}
    assert list(made) == [f.name for f in served.catalog.fitted]
    assert not set(made) & set(served.card.columns)
    known = market.features["realized_volatility_60"].to_numpy()[served.lookback : -30]
    row = served.row(market.bars.select(BAR_COLUMNS).head(7_321))
    value = row.values[0, served.card.columns.index("realized_volatility_60")]
    rank = made["volatility_rank"].apply(np.array([value], np.float32))
    assert rank[0] == pytest.approx(percentileofscore(known, value) / 100, abs=0.01)
    explained = dict(zip(served.model.learned, served.model.contributions(row.values)[0], strict=False))
    assert set(made) <= set(explained)


@pytest.mark.parametrize(
    ("forecast", "direction"),
    [
        (Forecast(1e-9, None), "up"),
        (Forecast(-1e-9, None), "down"),
        (Forecast(0.0, None), "flat"),
        (Forecast(None, 0.51), "up"),
        (Forecast(None, 0.49), "down"),
        (Forecast(None, 0.5), "flat"),
    ],
)
def test_direction_is_the_sign(forecast: Forecast, direction: str) -> None:
    assert forecast.direction == direction


def test_only_the_lookback_matters(market: Market) -> None:
    served = Forecaster(market.folders["xgboost"])
    bars = market.bars.select(BAR_COLUMNS)
    whole, tail = served.row(bars), served.row(bars.tail(served.lookback))
    np.testing.assert_array_equal(whole.values, tail.values)


def test_bars_that_cannot_be_used(market: Market) -> None:
    served = Forecaster(market.folders["xgboost"])
    bars = market.bars.select(BAR_COLUMNS)
    with pytest.raises(
        DataError, match=f"got {served.lookback - 1} bars; required: at least {served.lookback}"
    ):
        served.row(bars.tail(served.lookback - 1))
    with pytest.raises(DataError, match=r"bars\.volume: got no value; required"):
        served.row(bars.with_columns(volume=pl.lit(None, pl.Float64)))
    with pytest.raises(DataError, match="off the grid; required: whole minutes"):
        served.row(bars.with_columns(pl.col("time") + timedelta(seconds=7)))
    fives = bars.with_columns(pl.col("time").first() + 5 * (pl.col("time") - pl.col("time").first()))
    with pytest.raises(DataError, match=r"less than 0:05:00 apart; required: bars of 1 min"):
        served.row(fives)
    with pytest.raises(DataError, match="required: inside the trading sessions of CMES"):
        served.row(bars.with_columns(pl.col("time") + timedelta(days=6 - bars["time"][-1].isoweekday())))
    sparse = bars.with_columns(
        pl.when(pl.int_range(pl.len()) < 7_900)
        .then(pl.col("time") - timedelta(days=400))
        .otherwise("time")
        .alias("time")
    )
    with pytest.raises(DataError, match=r"bars span 4\d\d days; required: at most"):
        served.row(sparse)


def test_another_catalog_is_refused(market: Market, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(market.folders["xgboost"], folder)
    columns = json.loads((folder / "serving.json").read_text())["columns"]
    write_card(folder, columns, "0" * 32)
    with pytest.raises(ModelError, match=f"the model was trained on {'0' * 32}; required: equal"):
        Forecaster(folder)


def test_damaged_folders_are_refused(market: Market, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"serving\.json: not a usable model card \(.*No such file"):
        Forecaster(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(market.folders["xgboost"], folder)
    card = json.loads((folder / "serving.json").read_text())
    write_card(folder, card["columns"][1:], card["catalog_hash"])
    with pytest.raises(ModelError, match=r"model\.json others"):
        Forecaster(folder)
    del card["evidence"]
    (folder / "serving.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"not a usable model card \(evidence: Field required\)"):
        Forecaster(folder)


def test_volume_is_needed_only_where_a_feature_uses_it(market: Market, tmp_path: Path) -> None:
    from marketray.features.catalog import build_catalog
    from marketray.models import get_family
    from marketray.settings import FeatureSettings

    catalog = build_catalog(FeatureSettings(), ("time", "open", "high", "low", "close"))
    family = get_family("zero")
    model = family.fit({}, (), np.zeros((9, 0), np.float32), np.zeros(9))
    model.save(tmp_path)
    write_card(tmp_path, [], catalog.hash, model_type="zero", feature_inputs=list(catalog.inputs))
    served = Forecaster(tmp_path)
    assert served.inputs == ()
    bars = market.bars.select(BAR_COLUMNS).with_columns(
        [pl.lit(None, pl.Float64).alias(c) for c in ("volume", "bid", "ask")]
    )
    assert served.forecast(served.row(bars)).predicted_return == 0.0
