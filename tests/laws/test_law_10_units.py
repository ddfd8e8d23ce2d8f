"""Law 10, units: returns are fractions, times are tz-aware UTC and end in ``_at``, spans name their unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.dataset.load import load_blocks, load_split
from marketray.evaluation import metrics
from marketray.lake import Lake
from marketray.settings import LabelSettings, Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars


@pytest.fixture(scope="module")
def built(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    from marketray.dataset.stage import run_dataset

    home: Path = tmp_path_factory.mktemp("units")
    settings = small_settings(home)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    return settings


def test_labels_are_fractions_of_the_price(built: Settings) -> None:
    block = load_blocks(built, ("test",))
    bars = pl.concat([pl.from_arrow(t) for _, t in Lake(built.lake_uri).scan("bronze/bars")])
    at = bars["time"].search_sorted(block.decision_at.dt.offset_by("-1m"))
    end = bars["time"].dt.offset_by("1m").to_physical().search_sorted(pl.Series(block.label_end_us))
    now, then = bars["close"].gather(at).to_numpy(), bars["close"].gather(end).to_numpy()
    np.testing.assert_allclose(block.y, (then - now) / now, rtol=1e-9, atol=1e-15)
    assert np.abs(block.y).max() < 0.05  # a one-percent move is 0.01, not 1


def test_stored_times_are_utc_microseconds_and_end_in_at(built: Settings) -> None:
    lake = Lake(built.lake_uri)
    for dataset in ("gold/dataset", "gold/vault", "silver/eligible"):
        frame = pl.from_arrow(lake.read(dataset, lake.partitions(dataset)[0]))
        for name, kind in frame.schema.items():
            if kind.is_temporal():
                assert kind == pl.Datetime("us", "UTC"), (dataset, name)
                assert name == "time" or name.endswith("_at"), (dataset, name)
            else:
                assert not name.endswith("_at"), (dataset, name)
    train = load_split(built).blocks["train"]
    assert train.first_decision_at.endswith("+00:00")


def test_a_decision_is_one_bar_after_the_bars_open(built: Settings) -> None:
    lake = Lake(built.lake_uri)
    for _, table in lake.scan("gold/dataset"):
        frame = pl.from_arrow(table)
        assert (frame["decision_at"] - frame["time"]).dt.total_minutes().unique().to_list() == [1]
        assert (frame["row_id"] == "TEST@" + frame["decision_at"].dt.strftime("%Y%m%dT%H%M")).all()


def test_percent_names_hold_percent() -> None:
    y, forecast = np.array([0.001, -0.002]), np.array([0.0, 0.0])
    assert metrics.rmse_pct(y, forecast) == pytest.approx(100 * metrics.rmse(y, forecast))
    assert metrics.mae_pct(y, forecast) == pytest.approx(0.15)
    assert metrics.mae(y, forecast) == pytest.approx(0.0015)


def test_spans_in_settings_name_their_unit() -> None:
    spans = [n for n in LabelSettings.model_fields if "horizon" in n or "tolerance" in n]
    assert spans
    assert all(name.endswith("_minutes") for name in spans)
    assert LabelSettings().class_edges == (
        -0.005,
        -0.001,
        0.001,
        0.005,
    )  # half a percent, a tenth of a percent
