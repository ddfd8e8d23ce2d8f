"""A small market in the lake, and real models trained on its features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from marketray.evaluation.uncertainty import UNCERTAINTY_FILE, fit_uncertainty
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.lake import Lake
from marketray.models import get_family, load_model
from marketray.models.extended import fit_extended
from marketray.settings import Settings, load_settings
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market, Placed, simulated_bars, store_bars, write_card


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """8,000 bars, their features, and one stored model a kind."""
    bars, sessions = simulated_bars(8_000)
    catalog = build_catalog(Settings().features, bars.columns)
    features = compute(catalog, bars, sessions)
    label = (bars["close"].shift(-30) / bars["close"] - 1).to_numpy()
    usable = np.isfinite(label) & (np.arange(len(bars)) >= catalog.lookback)
    folders = {}
    for name, family, task in (
        ("xgboost", "xgboost", "regression"),
        ("direction", "lightgbm", "direction"),
        ("ar", "ar", "regression"),
    ):
        chosen = get_family(family)
        matrix = np.ascontiguousarray(features.select(catalog.names).to_numpy()[usable], np.float32)
        y = (label[usable] > 0).astype(float) if task == "direction" else label[usable]
        params = {"n_estimators": 20} if chosen.boosted else {}
        model = fit_extended(chosen, params, catalog.names, matrix, y, catalog.fitted, task=task, seed=1)
        folder = tmp_path_factory.mktemp(name)
        model.save(folder)
        write_card(folder, list(model.columns), catalog.hash, task=task, model_type=family)
        folders[name] = folder
    return Market(bars, features, sessions, folders)


@pytest.fixture(scope="session")
def uncertain(market: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the XGBoost and the direction model with their uncertainty beside them."""
    block = market.block()
    folders = {}
    for kind, task in (("xgboost", "regression"), ("direction", "direction")):
        model = load_model(market.folders[kind])
        folds = [(slice(0, 3_000), slice(3_100, 5_000))]
        past = block.take(slice(0, 5_000))
        out_of_fold = model.predict(past.select(model.columns).values[3_100:])
        made = fit_uncertainty(past, folds, out_of_fold, task=task, horizon_minutes=30)
        folders[kind] = tmp_path_factory.mktemp(f"uncertain-{kind}") / "model"
        shutil.copytree(market.folders[kind], folders[kind])
        (folders[kind] / UNCERTAINTY_FILE).write_text(json.dumps(made.to_json()))
    return folders


@pytest.fixture
def settings(home: Path, market: Market) -> Settings:
    """Settings of a fresh home whose lake holds the market's bars."""
    made = load_settings(None, {"home": str(home), "instrument": INSTRUMENT})
    store_bars(Lake(made.lake_uri), market.bars)
    return made


@pytest.fixture
def config(settings: Settings, market: Market) -> Placed:
    """The blue slot over the XGBoost model."""
    return Placed(str(market.folders["xgboost"]), settings)


def local(settings: Settings, market: Market) -> LocalService:
    """Version 7 (XGBoost) in blue, green empty; 8, the champion, is autoregressive, 9 a direction model."""
    folders = {7: market.folders["xgboost"], 9: market.folders["direction"], 8: market.folders["ar"]}
    return LocalService(settings, folders, {"blue": 7, "green": None}, champion=8)


@pytest.fixture
def service(settings: Settings, market: Market) -> LocalService:
    """See `local`."""
    return local(settings, market)


@pytest.fixture
def client(service: LocalService) -> Client:
    """A client of `service` that shows its token."""
    return Client.of(service)


@pytest.fixture(scope="session")
def refusing(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The same over a service of its own that all tests share, so none may change anything."""
    home = str(tmp_path_factory.mktemp("refusing"))
    made = load_settings(None, {"home": home, "instrument": INSTRUMENT})
    store_bars(Lake(made.lake_uri), market.bars)
    return Client.of(local(made, market))
