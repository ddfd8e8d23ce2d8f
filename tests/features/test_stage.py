"""The stage on a local Ray: what it writes, skips, removes and refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import ClusterError, DataError, LakeError
from marketray.features.catalog import build_catalog
from marketray.features.items import month_ranges, plan_items
from marketray.features.kernel import compute
from marketray.features.stage import (
    FeatureTask,
    _compute_item,
    _stored_months,
    available_columns,
    run_features,
)
from marketray.lake import Lake
from marketray.settings import FeatureSettings, MarketSettings, Settings
from tests.features.market import assert_equal, make_bars, sessions_of, spread, store

INSTRUMENT = "TEST_USD"
BARS = make_bars(6_000, seed=51, start=datetime(2024, 2, 26, tzinfo=UTC)).drop("bid", "ask")
FEATURES = FeatureSettings(groups=("returns", "volume"))


@pytest.fixture
def filled(home: Path) -> Settings:
    """Settings with a lake that holds bars of two months."""
    made = Settings(home=home, instrument=INSTRUMENT, features=FEATURES)
    store(Lake(made.lake_uri), INSTRUMENT, BARS)
    return made


@pytest.mark.usefixtures("ray_local")
def test_every_bar_becomes_a_row_and_nothing_is_done_twice(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    lake.write_json("manifests/features/other.json", {})
    first = run_features(filled)
    assert (first.written, first.skipped, first.rows) == (2, 0, len(BARS))
    assert first.months == ("2024-02", "2024-03")
    assert first.dropped == ()
    catalog = build_catalog(FEATURES, BARS.columns)
    assert (first.features, first.lookback) == (len(catalog.names), catalog.lookback)
    assert first.catalog_hash == catalog.hash
    rows = pl.concat(pl.DataFrame(pl.from_arrow(t)) for _, t in lake.scan("silver/features"))
    assert rows.columns == ["time", "decision_at", *catalog.names]
    whole = compute(catalog, BARS, sessions_of(BARS["time"]))
    spreads = {name: spread(whole, name) for name in catalog.names}
    assert_equal(rows, whole, spreads, {f.name for f in catalog.features if f.exact})
    manifest = lake.read_json(f"manifests/features/{INSTRUMENT}.json")
    assert manifest["rows_in"] == manifest["rows_out"] == len(BARS)
    assert manifest["partitions"] == ["2024-02", "2024-03"]
    assert manifest["detail"]["catalog_hash"] == catalog.hash
    second = run_features(filled)
    assert (second.written, second.skipped, second.rows) == (0, 2, len(BARS))


@pytest.mark.usefixtures("ray_local")
def test_a_changed_month_recomputes_itself_and_what_its_halo_reaches(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    run_features(filled)
    longer = make_bars(6_500, seed=52, start=datetime(2024, 3, 11, tzinfo=UTC)).drop("bid", "ask")
    march = BARS.filter(pl.col("time").dt.month() == 3)
    store(lake, INSTRUMENT, pl.concat([march, longer.filter(pl.col("time") > march["time"][-1])]))
    grown = run_features(filled)
    assert (grown.written, grown.skipped) == (1, 1)
    lake.delete("bronze/bars", {"instrument": INSTRUMENT, "month": "2024-02"})
    cut = run_features(filled)
    assert (cut.written, cut.months) == (1, ("2024-03",))
    assert [p["month"] for p in lake.partitions("silver/features")] == ["2024-03"]


@pytest.mark.usefixtures("ray_local")
def test_an_error_in_a_task_arrives_as_it_was_raised(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    lake.delete("bronze/bars")
    store(lake, INSTRUMENT, pl.concat([BARS.head(50), BARS.slice(40, 50)]))
    with pytest.raises(
        DataError, match="TEST_USD/2024-02: bars: the times do not strictly increase"
    ) as raised:
        run_features(filled)
    assert raised.value.hint == "sort the bars by time and drop duplicates"
    assert lake.partitions("silver/features") == []


@pytest.mark.usefixtures("ray_local")
def test_an_unforeseen_error_is_named(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def lost(self: object) -> None:
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr(ray.data.Dataset, "take_all", lost)
    with pytest.raises(ClusterError, match="features: a task failed: The worker died unexpectedly"):
        run_features(filled)


def test_no_bars_is_an_error(home: Path) -> None:
    with pytest.raises(LakeError, match="bronze/bars: no bars of instrument=NONE"):
        run_features(Settings(home=home, instrument="NONE"))


def test_a_column_that_is_null_throughout_is_not_available(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    assert "volume" in available_columns(lake, INSTRUMENT)
    store(lake, INSTRUMENT, BARS.with_columns(volume=pl.lit(None, pl.Float64)))
    assert available_columns(lake, INSTRUMENT) == ("close", "high", "low", "open", "outlier", "time")


def test_a_node_with_other_code_is_refused(filled: Settings) -> None:
    lake = Lake(filled.lake_uri)
    months = _stored_months(lake, INSTRUMENT)
    (item, _) = plan_items(INSTRUMENT, months, month_ranges(months), 241, "recipe")
    task = FeatureTask(
        filled.lake_uri, "silver/features", FEATURES, MarketSettings(), tuple(BARS.columns), 1, "other"
    )
    with pytest.raises(DataError, match="the driver's is other"):
        _compute_item(item, task)
