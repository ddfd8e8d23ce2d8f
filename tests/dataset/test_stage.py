from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.dataset.load import DATASET, VAULT, load_blocks, load_split
from marketray.dataset.stage import DatasetResult, run_dataset
from marketray.errors import DataError, LakeError
from marketray.features.catalog import build_catalog
from marketray.features.items import stage_key
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.settings import MarketSettings, Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars

pytestmark = pytest.mark.usefixtures("ray_local")


def tree(settings: Settings) -> dict[str, bytes]:
    root = Path(settings.lake_uri)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def built(tmp_path: Path) -> tuple[Settings, DatasetResult]:
    settings = small_settings(tmp_path)
    write_inputs(settings, xnys_bars())
    return settings, run_dataset(settings)


def test_rows_in_are_rows_out_and_dropped(built: tuple[Settings, DatasetResult]) -> None:
    settings, result = built
    assert result.rows_in == xnys_bars().height
    assert result.rows_in == result.rows_out + result.rows_dropped
    assert result.rows_dropped == sum(result.dropped.values())
    catalog = build_catalog(settings.features, ["time", "open", "high", "low", "close"])
    assert result.dropped["warm_up"] == catalog.lookback - 1
    lake = Lake(settings.lake_uri)
    stored = [lake.manifest(d, p) for d in (DATASET, VAULT) for p in lake.partitions(d)]
    assert sum(m.rows_out for m in stored if m) == result.rows_out
    manifest = lake.read_json("manifests/dataset/default.json")
    assert (manifest["rows_in"], manifest["rows_out"]) == (result.rows_in, result.rows_out)
    assert manifest["rows_dropped"] == result.rows_dropped
    assert manifest["detail"]["dropped"] == result.dropped
    assert load_split(settings).detail["labels"] == result.labels.summary()
    assert load_split(settings) == result.split


def test_out_of_time_rows_lie_in_the_vault_alone(built: tuple[Settings, DatasetResult]) -> None:
    lake = Lake(built[0].lake_uri)
    assert {p["split"] for p in lake.partitions(DATASET)} == {"train", "validation", "test"}
    assert {p["split"] for p in lake.partitions(VAULT)} == {"oot", "oot2"}
    listed = lake.partitions("silver/eligible")
    assert set(lake.read("silver/eligible", listed[0]).column_names) == {
        "position",
        "decision_at",
        "session_open_at",
        "label_end_at",
    }


def test_a_second_run_writes_nothing_and_changes_no_byte(built: tuple[Settings, DatasetResult]) -> None:
    settings, first = built
    before = tree(settings)
    again = run_dataset(settings)
    assert (again.written, again.skipped) == (0, first.written)
    assert tree(settings) == before
    assert again.split == first.split


def test_a_lost_partition_alone_is_written_again(built: tuple[Settings, DatasetResult]) -> None:
    settings, _ = built
    before = tree(settings)
    lake = Lake(settings.lake_uri)
    lake.delete(DATASET, lake.partitions(DATASET, split="train")[0])
    assert run_dataset(settings).written == 1
    lake.delete("silver/eligible", lake.partitions("silver/eligible")[1])
    assert run_dataset(settings).written == 1
    assert tree(settings) == before


def test_a_longer_history_equals_a_dataset_built_at_once(tmp_path: Path) -> None:
    bars = xnys_bars()
    early = pl.col("time") < datetime(2024, 12, 12, tzinfo=UTC)
    grown, whole = small_settings(tmp_path / "grown"), small_settings(tmp_path / "whole")
    write_inputs(grown, bars.filter(early))
    run_dataset(grown)
    write_inputs(grown, bars)
    result = run_dataset(grown)
    assert result.skipped > 0  # October is what it was
    write_inputs(whole, bars)
    run_dataset(whole)
    assert tree(grown) == tree(whole)


def test_a_shorter_history_leaves_no_stale_rows(built: tuple[Settings, DatasetResult]) -> None:
    settings, _ = built
    lake = Lake(settings.lake_uri)
    for dataset in ("bronze/bars", "silver/features"):
        lake.delete(dataset, lake.partitions(dataset)[-1])
    run_dataset(settings)
    assert {p["month"] for p in lake.partitions(VAULT)} == {"2024-11"}
    assert {p["month"] for p in lake.partitions("silver/eligible")} == {"2024-10", "2024-11"}
    assert len(load_blocks(settings)) > 0


def test_decision_hours_are_a_setting(tmp_path: Path) -> None:
    market = {"calendar": "XNYS", "breaks": [], "decision_hours": "XLON"}  # London closes at 16:30
    settings = small_settings(tmp_path, market=market)
    write_inputs(settings, xnys_bars())
    result = run_dataset(settings)
    assert result.dropped["outside_decision_hours"] > 0
    decisions = load_blocks(settings, ("train", "validation", "test")).decision_at
    assert (
        decisions.dt.convert_time_zone("Europe/London").dt.time().max() < datetime(2024, 1, 1, 16, 30).time()
    )


def test_missing_and_stale_inputs_are_refused(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    lake = Lake(settings.lake_uri)
    with pytest.raises(LakeError, match="silver/features has no partition for instrument=TEST"):
        run_dataset(settings)
    write_inputs(settings, xnys_bars())
    everything = settings.model_copy(update={"features": settings.features.model_copy(update={"groups": ()})})
    with pytest.raises(LakeError, match="silver/features lacks .* columns of the catalog"):
        run_dataset(everything)
    october = lake.partitions("silver/features")[0]
    table = lake.read("silver/features", october).slice(1)
    lake.write(
        "silver/features", october, table, Manifest("k", table_hash(table), table.num_rows, table.num_rows)
    )
    with pytest.raises(DataError, match="do not belong to the month's"):  # raised in a task
        run_dataset(settings)
    lake.delete("silver/features", october)
    with pytest.raises(LakeError, match=r"differ in the months \['2024-10'\]"):
        run_dataset(settings)
    lake.delete("bronze/bars")
    with pytest.raises(LakeError, match="bronze/bars has no partition"):
        run_dataset(settings)


def test_features_of_other_bars_another_catalog_or_other_hours_are_refused(
    built: tuple[Settings, DatasetResult],
) -> None:
    settings, _ = built
    lake, market = Lake(settings.lake_uri), settings.market
    catalog = build_catalog(settings.features, ["time", "open", "high", "low", "close"])
    contents = [m.content for p in lake.partitions("bronze/bars") if (m := lake.manifest("bronze/bars", p))]
    lake.write_json("manifests/features/TEST.json", {"key": stage_key(catalog.hash, market, contents)})
    assert run_dataset(settings).written == 0
    for key in (
        stage_key("another catalog", market, contents),
        stage_key(catalog.hash, market, contents[1:]),
        stage_key(catalog.hash, MarketSettings(calendar="XLON", breaks=()), contents),
    ):
        lake.write_json("manifests/features/TEST.json", {"key": key})
        with pytest.raises(
            LakeError, match="was made from other bars or news, with another catalog, or for another"
        ):
            run_dataset(settings)


def test_bars_without_an_eligible_row_are_refused(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    write_inputs(settings, xnys_bars().head(50))
    with pytest.raises(DataError, match="none of the bars is eligible: .*'warm_up': 50"):
        run_dataset(settings)
