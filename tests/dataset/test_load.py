from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.dataset.load import DATASET, dataset_content, load_blocks, load_split, split_path
from marketray.errors import DataError, LakeError
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.settings import Settings
from tests.dataset.synthetic import MINUTE, small_settings, write_inputs, xnys_bars


def test_a_block_holds_the_rows_of_its_splits_in_time_order(dataset: Settings) -> None:
    split = load_split(dataset)
    block = load_blocks(dataset, ("validation", "train"))  # the order of asking does not matter
    assert len(block) == split.blocks["train"].rows + split.blocks["validation"].rows
    assert (np.diff(block.decision_us) > 0).all()
    assert block.row_id_hash != split.blocks["train"].row_id_hash
    assert block.take(slice(0, split.blocks["train"].rows)).row_id_hash == split.blocks["train"].row_id_hash
    assert block.values.dtype == np.float32
    assert block.values.flags.c_contiguous
    assert block.values.shape == (len(block), len(split.columns))
    assert block.columns == split.columns


def test_a_block_equals_what_bars_and_features_say(dataset: Settings) -> None:
    block = load_blocks(dataset, ("test",))
    lake = Lake(dataset.lake_uri)
    bars = pl.concat([pl.from_arrow(t) for _, t in lake.scan("bronze/bars")])
    features = pl.concat([pl.from_arrow(t) for _, t in lake.scan("silver/features")])
    at = bars["time"].search_sorted(block.decision_at.dt.offset_by("-1m"))
    close = bars["close"].gather(at).to_numpy()
    np.testing.assert_array_equal(block.close, close)
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    last = np.searchsorted(ends, block.decision_us + 30 * MINUTE, side="right") - 1
    np.testing.assert_array_equal(block.label_end_us, ends[last])
    np.testing.assert_allclose(block.y, bars["close"].to_numpy()[last] / close - 1, rtol=1e-12)
    np.testing.assert_array_equal(block.up, (block.y > 0).astype(float))
    stored = features.select(pl.col(block.columns).gather(at)).to_numpy().astype(np.float32)
    np.testing.assert_array_equal(block.values, stored)
    assert block.row_ids[0] == f"TEST@{block.decision_at[0]:%Y%m%dT%H%M}"
    assert ((block.decision_us - block.session_open_us) > 0).all()


def test_columns_and_rows_can_be_chosen(dataset: Settings) -> None:
    block = load_blocks(dataset, ("test",))
    names = block.columns[5:2:-1]
    chosen = block.select(names)
    np.testing.assert_array_equal(chosen.values, block.values[:, [5, 4, 3]])
    assert chosen.values.flags.c_contiguous
    assert block.select(block.columns) is block
    mask = block.y > 0
    assert block.take(mask).y.tolist() == block.y[mask].tolist()
    assert block.take(np.array([4, 2])).row_ids.tolist() == [block.row_ids[4], block.row_ids[2]]
    with pytest.raises(DataError, match=r"columns \['nonsense'\] are not in this block"):
        block.select(("nonsense",))


@pytest.mark.parametrize("splits", [(), ("train", "holdout")])
def test_unknown_splits_are_refused(dataset: Settings, splits: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="required: one or more of"):
        load_blocks(dataset, splits)


def test_a_missing_dataset_and_another_instrument_are_refused(dataset: Settings, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"has no gold/dataset/name=default/split\.json"):
        load_blocks(small_settings(tmp_path))
    with pytest.raises(LakeError, match="holds TEST; required: instrument=OTHER"):
        load_split(dataset.model_copy(update={"instrument": "OTHER"}))


def test_files_that_do_not_match_the_split_object_are_refused(ray_local: None, tmp_path: Path) -> None:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tmp_path)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    lake = Lake(settings.lake_uri)
    before = dataset_content(settings)
    partition = lake.partitions(DATASET, split="train")[0]
    table = lake.read(DATASET, partition)
    manifest = lake.manifest(DATASET, partition)
    for changed in (table.slice(1), table.take(list(reversed(range(table.num_rows))))):
        lake.write(
            DATASET,
            partition,
            changed,
            Manifest("k", table_hash(changed), changed.num_rows, changed.num_rows),
        )
        with pytest.raises(LakeError, match="files of train are not the"):
            load_blocks(settings)
        assert dataset_content(settings) != before
    lake.delete(DATASET, partition)
    with pytest.raises(LakeError, match="files of train are not the"):
        load_blocks(settings)
    assert manifest is not None
    lake.write(DATASET, partition, table.drop_columns(["close"]), manifest)
    with pytest.raises(LakeError, match=r"lacks the columns \['close'\]"):
        load_blocks(settings)
    lake.write(DATASET, partition, table, manifest)
    assert dataset_content(settings) == before
    stored = json.loads((tmp_path / "lake" / split_path("default")).read_text())
    assert stored["blocks"]["train"]["rows"] == load_split(settings).blocks["train"].rows
