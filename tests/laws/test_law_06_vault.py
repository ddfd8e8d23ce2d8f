"""Law 6, vault: out-of-time rows cannot reach tuning or selection, and every opening is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketray.dataset.load import DATASET, VAULT, Block, dataset_content, load_blocks, load_split
from marketray.dataset.splits import OPEN_SPLITS, VAULT_SPLITS
from marketray.dataset.vault import open_vault, openings
from marketray.errors import VaultError
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.settings import Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars


@pytest.fixture
def built(ray_local: None, tmp_path: Path) -> Settings:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tmp_path)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    return settings


def as_bytes(block: Block) -> list[bytes]:
    arrays = (block.row_ids, block.decision_us, block.session_open_us, block.label_end_us)
    return [a.tobytes() for a in (*arrays, block.y, block.close, block.values)]


def replace_by_noise(lake: Lake) -> None:
    rng = np.random.default_rng(0)
    for partition in lake.partitions(VAULT):
        table = lake.read(VAULT, partition)
        columns = {}
        for name in table.column_names:
            kind = table[name].type
            noisy = pa.types.is_floating(kind)
            columns[name] = pa.array(rng.standard_normal(table.num_rows), kind) if noisy else table[name]
        noise = pa.table(columns)
        lake.write(VAULT, partition, noise, Manifest("n", table_hash(noise), noise.num_rows, noise.num_rows))


def test_noise_in_the_vault_and_its_loss_change_nothing_that_can_be_loaded(built: Settings) -> None:
    lake = Lake(built.lake_uri)
    splits = ("train", "validation", "test")
    before, content, folds = (
        as_bytes(load_blocks(built, splits)),
        dataset_content(built, splits),
        load_split(built).folds,
    )
    replace_by_noise(lake)
    assert as_bytes(load_blocks(built, splits)) == before
    lake.delete(VAULT)
    assert as_bytes(load_blocks(built, splits)) == before
    assert (dataset_content(built, splits), load_split(built).folds) == (content, folds)


@pytest.mark.parametrize("splits", [("oot",), ("oot2",), ("train", "oot"), ("test", "oot2")])
def test_out_of_time_rows_cannot_be_loaded(built: Settings, splits: tuple[str, ...]) -> None:
    with pytest.raises(VaultError, match="which are in the vault"):
        load_blocks(built, splits)


def test_no_open_file_holds_an_out_of_time_row(built: Settings) -> None:
    lake = Lake(built.lake_uri)
    first = min(load_split(built).blocks[s].first_decision_at for s in VAULT_SPLITS)
    for _, table in lake.scan(DATASET):
        assert max(table["decision_at"].to_pylist()).isoformat() < first
        assert max(table["label_end_at"].to_pylist()).isoformat() <= first
    assert {p["split"] for p in lake.partitions(DATASET)} == set(OPEN_SPLITS)
    assert {p["split"] for p in lake.partitions(VAULT)} == set(VAULT_SPLITS)


def test_noise_put_into_the_vault_is_refused_by_the_gate(built: Settings) -> None:
    lake = Lake(built.lake_uri)
    replace_by_noise(lake)  # with manifests that agree with the noise
    partition = lake.partitions(VAULT, split="oot")[0]
    table, manifest = lake.read(VAULT, partition), lake.manifest(VAULT, partition)
    assert manifest is not None
    lake.write(VAULT, partition, table, Manifest("n", "0" * 32, table.num_rows, table.num_rows))
    with pytest.raises(VaultError, match="not those that the dataset stage wrote"):
        open_vault(built, "oot", "gate", "key")
    assert openings(built, "oot") == 0


def test_only_the_gate_reads_oot_only_the_report_reads_oot2_and_both_are_counted(built: Settings) -> None:
    for split, reader in (("oot", "report"), ("oot2", "gate")):
        with pytest.raises(VaultError, match="required: gate for oot, report for oot2"):
            open_vault(built, split, reader, "key")  # type: ignore[arg-type]
    ks = [open_vault(built, "oot", "gate", key)[1] for key in ("a", "b", "b", "a", "c")]
    assert ks == [1, 2, 2, 1, 3]
    assert open_vault(built, "oot2", "report", "a")[1] == 1


def test_oot2_is_the_last_rows_and_every_edge_has_its_gap(built: Settings) -> None:
    split = load_split(built)
    assert split.blocks["oot2"].rows == int(split.rows * 0.05)
    assert split.blocks["oot2"].stop == split.rows
    blocks = list(split.blocks.values())
    assert all(earlier.embargoed > 0 for earlier in blocks[:-1])
    assert [b.start for b in blocks[1:]] == [b.stop + b.purged + b.embargoed for b in blocks[:-1]]
