"""The catalog: what is in it, what settings and missing columns leave out, and its identity."""

from __future__ import annotations

import logging

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.features import catalog as module
from marketray.features.catalog import build_catalog, check_features
from marketray.features.definition import KERNEL_COLUMNS, Feature
from marketray.features.kernel import compute
from marketray.pipeline import run_pipeline
from marketray.settings import FeatureSettings, Settings
from marketray.settings_sections import FeatureFile
from tests.features.market import COLUMNS, make_bars, sessions_of

PRICES = COLUMNS[:5]
SEED = FeatureSettings(catalog="seed-compatible")
ALL = build_catalog(FeatureSettings(), COLUMNS)


def test_at_least_forty_features_beside_the_sixty_lags() -> None:
    assert ALL.group("lags") == tuple(f"return_1_lag_{k}" for k in range(60))
    assert len(ALL.names) - 60 >= 40
    assert len(set(ALL.names)) == len(ALL.names)
    assert len(build_catalog(FeatureSettings(), PRICES).names) - 60 >= 40


def test_every_definition_is_complete() -> None:
    for feature in ALL.features:
        assert feature.lookback >= 1
        assert feature.formula
        assert feature.source
        assert feature.unit
        assert not feature.name.startswith("_")


def test_the_halo_comes_from_the_longest_lookback() -> None:
    assert ALL.lookback == max(f.lookback for f in ALL.features) == 1_440
    assert build_catalog(FeatureSettings(groups=("returns",)), PRICES).lookback == 361
    assert build_catalog(FeatureSettings(), PRICES, interval_minutes=60)["return_since_open"].lookback == 24


def test_features_without_their_inputs_are_dropped_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="marketray"):
        catalog = build_catalog(FeatureSettings(), PRICES)
    full = build_catalog(FeatureSettings(), (*COLUMNS, "bid_size", "ask_size"))
    assert catalog.dropped == tuple(f.name for f in full.features if f.inputs)
    assert {"volume_ratio_20", "mfi_14", "high_volume", "vwap_distance_session"} <= set(catalog.dropped)
    assert {"spread_relative", "quote_position", "depth_imbalance"} <= set(catalog.dropped)
    assert "market_stress" in catalog.names
    assert "volume_zscore_60" in caplog.text
    assert set(catalog.columns) == set(PRICES)
    with_quotes = build_catalog(FeatureSettings(), (*PRICES, "bid", "ask"))
    assert "spread_relative" in with_quotes.names


def test_groups_and_names_can_be_left_out() -> None:
    chosen = FeatureSettings(groups=("trend", "momentum"), exclude=("rsi_14", "macd"))
    catalog = build_catalog(chosen, PRICES)
    assert {f.group for f in catalog.features} == {"trend", "momentum"}
    assert "macd" not in catalog.names
    assert "macd_histogram" in catalog.names  # still computed from what is not stored


def test_the_hash_follows_the_definitions() -> None:
    assert build_catalog(FeatureSettings(), COLUMNS).hash == ALL.hash
    assert build_catalog(FeatureSettings(exclude=("macd",)), COLUMNS).hash != ALL.hash
    assert build_catalog(FeatureSettings(), COLUMNS, interval_minutes=5).hash != ALL.hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FeatureSettings(groups=("trends",)), r"features.groups: got \['trends'\]; required: some of"),
        (FeatureSettings(exclude=("sma",)), r"features.exclude: \['sma'\] are not features of the standard"),
        (SEED.model_copy(update={"groups": ("trend",)}), r"got \['trend'\]; required: some of \['seed_tech"),
        (SEED.model_copy(update={"exclude": ("candle_body",)}), "are not features of the seed-compatible"),
        (FeatureSettings(groups=("volume",)), "leave no feature for these bars"),
    ],
)
def test_wrong_settings_are_refused(settings: FeatureSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_catalog(settings, PRICES)


def test_settings_are_checked_without_bars() -> None:
    check_features(FeatureSettings(groups=("volume",)))  # that these bars lack volume is seen later
    check_features(SEED, 60)
    with pytest.raises(SettingsError, match=r"features.groups: got \['trends'\]"):
        check_features(FeatureSettings(groups=("trends",)))
    with pytest.raises(SettingsError, match=r"mine\.py registers no feature"):
        check_features(FeatureSettings(files=(FeatureFile(path="/mine.py", text="x = 1"),)))


def test_a_run_refuses_unknown_features_before_it_ingests(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []
    monkeypatch.setattr("marketray.pipeline.run_stage", lambda name, _: stages.append(name))
    with pytest.raises(SettingsError, match=r"features.exclude: \['sma'\] are not features"):
        run_pipeline(Settings(features=FeatureSettings(exclude=("sma",))))
    assert stages == []


def test_the_catalog_is_a_setting() -> None:
    seed = build_catalog(SEED, COLUMNS)
    assert seed.hash != ALL.hash
    assert seed.group("lags") == ALL.group("lags")
    assert "seed_technical" not in {f.group for f in ALL.features}
    chosen = SEED.model_copy(update={"groups": ("seed_base", "seed_hourly"), "exclude": ("is_backfilled",)})
    without_volume = build_catalog(chosen, PRICES)
    assert without_volume.dropped == ("volume", "hourly_volume")
    assert without_volume.names[:3] == ("open", "high", "low")
    with pytest.raises(ValueError, match="Input should be 'standard' or 'seed-compatible'"):
        FeatureSettings.model_validate({"catalog": "old"})


def test_bar_columns_alone_can_be_features() -> None:
    others = set(build_catalog(SEED, COLUMNS).group("seed_base")) - {"open", "volume"}
    chosen = SEED.model_copy(update={"groups": ("seed_base",), "exclude": tuple(sorted(others))})
    catalog = build_catalog(chosen, COLUMNS)
    assert (catalog.names, catalog.layers, catalog.lookback) == (("open", "volume"), (), 1)
    bars = make_bars(50, seed=1)
    rows = compute(catalog, bars, sessions_of(bars["time"]))
    assert rows["open"].to_list() == bars["open"].to_list()
    assert rows["volume"].to_list() == bars["volume"].to_list()


def test_bars_without_prices_are_refused() -> None:
    with pytest.raises(DataError, match=r"lack \['close'\]"):
        build_catalog(FeatureSettings(), PRICES[:4])


def test_a_circle_of_definitions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def circle(interval: int) -> list[Feature]:
        return [
            Feature(name=a, group="g", lookback=1, expression=pl.col(b), formula="-", source="-")
            for a, b in (("egg", "hen"), ("hen", "egg"))
        ]

    monkeypatch.setattr(module, "built_in_features", circle)
    with pytest.raises(SettingsError, match="egg -> hen -> egg is a circle"):
        build_catalog(FeatureSettings(), PRICES)


def test_definitions_need_only_bars_kernel_columns_and_each_other() -> None:
    known = set(COLUMNS) | set(KERNEL_COLUMNS)
    for layer in ALL.layers:
        assert {root for e in layer for root in e.meta.root_names()} <= known
        known |= {e.meta.output_name() for e in layer}
    assert set(ALL.names) <= known


def test_a_feature_is_found_by_name() -> None:
    assert ALL["rsi_14"].unit == "index 0-100"
    with pytest.raises(KeyError, match="nothing"):
        ALL["nothing"]
