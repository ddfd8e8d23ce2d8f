"""Batch forecasts: equal to those online, one file a month, done once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketray.errors import DataError, LakeError
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.serving.batch import DATASET, FEATURES, forecast_rows, run_batch_inference
from marketray.serving.forecaster import Forecaster
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market


def store_features(settings: Settings, features: pl.DataFrame, catalog_hash: str) -> None:
    """Write silver/features by month, and its manifest, as the features stage does."""
    lake = Lake(settings.lake_uri)
    for month, part in features.group_by(pl.col("time").dt.strftime("%Y-%m"), maintain_order=True):
        table = part.to_arrow()
        manifest = Manifest("k", table_hash(table), len(part), len(part))
        lake.write(FEATURES, {"instrument": INSTRUMENT, "month": str(month[0])}, table, manifest)
    lake.write_json(f"manifests/features/{INSTRUMENT}.json", {"detail": {"catalog_hash": catalog_hash}})


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, market: Market) -> Path:
    """Version 7 is the champion: the XGBoost model."""
    folder = market.folders["xgboost"]
    registry = SimpleNamespace(resolve=lambda _: SimpleNamespace(version=7), download=lambda _: folder)
    monkeypatch.setattr("marketray.registry.Registry", lambda _: registry)
    return folder


def forecasts(uri: str) -> pl.DataFrame:
    found = [pl.DataFrame(table) for _, table in Lake(uri).scan(DATASET, instrument=INSTRUMENT, version="7")]
    return pl.concat(found).sort("time")


@pytest.mark.parametrize("kind", ["xgboost", "direction", "ar", "uncertain"])
def test_equal_to_the_forecast_at_that_time(kind: str, market: Market, uncertain: dict[str, Path]) -> None:
    folder = uncertain["xgboost"] if kind == "uncertain" else market.folders[kind]
    forecaster = Forecaster(folder)
    made = forecast_rows(forecaster, market.features)
    lookback, rng = forecaster.lookback, np.random.default_rng(4)
    assert made.height >= market.features.height - lookback
    for i in rng.integers(lookback, len(market.bars), 12):
        bars = market.bars.slice(i - lookback + 1, lookback)
        row = forecaster.row(bars)
        online = forecaster.forecast(row)
        batch = made.row(by_predicate=pl.col("decision_at") == row.decision_at, named=True)
        assert batch["time"] == bars["time"][-1]
        assert batch["target_at"] == row.decision_at + timedelta(minutes=30)
        for name in ("predicted_return", "probability_up", "confidence"):
            expected = getattr(online, name)
            assert batch[name] == (None if expected is None else pytest.approx(expected, rel=1e-9)), name


def test_what_has_no_forecast_is_left_out(market: Market) -> None:
    features = market.features.head(50).with_columns(return_1_lag_0=pl.lit(None, pl.Float64))
    assert forecast_rows(Forecaster(market.folders["ar"]), features).is_empty()
    trees = Forecaster(market.folders["xgboost"])
    assert forecast_rows(trees, features).height == 50
    closed = market.features.head(3).with_columns(pl.col("time") - pl.duration(days=1, minutes=0))
    assert forecast_rows(trees, closed.with_columns(decision_at=pl.col("time"))).is_empty()
    with pytest.raises(DataError, match=r"silver/features lacks \['.*\(\d+ in all\); required by the model"):
        forecast_rows(trees, features.select("time", "decision_at"))


def test_a_month_is_done_once(
    settings: Settings, market: Market, registered: Path, ray_local: None, tmp_path: Path
) -> None:
    trees = Forecaster(registered)
    store_features(settings, market.features, trees.card.catalog_hash)
    done = run_batch_inference(settings)
    assert (done.model_version, done.written, done.skipped) == (7, 2, 0)
    assert (done.rows, done.rows_dropped) == (market.features.height, 0)
    assert_frame_equal(forecasts(settings.lake_uri), forecast_rows(trees, market.features))
    again = run_batch_inference(settings)
    assert (again.written, again.skipped, again.rows) == (0, 2, done.rows)
    one = Lake(settings.lake_uri).partitions(DATASET, instrument=INSTRUMENT)[0]
    Lake(settings.lake_uri).delete(DATASET, one)  # as after a kill between two months
    assert run_batch_inference(settings).written == 1
    elsewhere = run_batch_inference(settings, out=str(tmp_path / "other"))
    assert (elsewhere.written, elsewhere.out) == (2, str(tmp_path / "other"))
    assert_frame_equal(forecasts(elsewhere.out), forecasts(settings.lake_uri))


def test_other_features_are_refused(settings: Settings, market: Market, registered: Path) -> None:
    with pytest.raises(DataError, match="silver/features: the catalog is None, the model was trained on"):
        run_batch_inference(settings)
    store_features(settings, market.features.head(0), Forecaster(registered).card.catalog_hash)
    with pytest.raises(LakeError, match="silver/features: no features of instrument=TEST_USD"):
        run_batch_inference(settings)
    other = settings.model_copy(update={"instrument": "OTHER"})
    with pytest.raises(DataError, match="version 7 forecasts TEST_USD; required: instrument=OTHER"):
        run_batch_inference(other)


@pytest.mark.slow
def test_more_rows_than_memory_would_like(
    settings: Settings, market: Market, registered: Path, ray_local: None
) -> None:
    """A year of copies of one week of features, each on its own trading days."""
    week = market.features.head(6_000)
    parts = []
    for k in range(24):
        days = pl.duration(days=14 * k)
        parts.append(week.with_columns(pl.col("time") + days, pl.col("decision_at") + days))
    trees = Forecaster(registered)
    features = pl.concat(parts)
    store_features(settings, features, trees.card.catalog_hash)
    done = run_batch_inference(settings)
    assert done.rows + done.rows_dropped == 144_000
    assert done.rows > 130_000  # summer time and holidays close some hours
    made = forecasts(settings.lake_uri)
    matrix = features.join(made, on="time", how="semi").select(trees.card.columns).to_numpy()
    np.testing.assert_allclose(
        made["predicted_return"].to_numpy(),
        trees.values(np.ascontiguousarray(matrix, np.float32)),
        rtol=1e-9,
    )
