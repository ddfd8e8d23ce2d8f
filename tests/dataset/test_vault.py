from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marketray.dataset.load import VAULT, load_split
from marketray.dataset.vault import LEDGER, open_vault, openings
from marketray.errors import LakeError, VaultError
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.settings import Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars


@pytest.fixture
def vault(ray_local: None, tmp_path: Path) -> Settings:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tmp_path)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    return settings


def test_openings_are_counted_by_rows_and_purpose(vault: Settings) -> None:
    assert openings(vault, "oot") == 0
    block, k = open_vault(vault, "oot", "gate", "first")
    assert (k, openings(vault, "oot")) == (1, 1)
    assert block.row_id_hash == load_split(vault).blocks["oot"].row_id_hash
    assert open_vault(vault, "oot", "gate", "second")[1] == 2
    again, k = open_vault(vault, "oot", "gate", "first")  # the same evidence asked again
    assert (k, openings(vault, "oot")) == (1, 2)
    np.testing.assert_array_equal(again.values, block.values)
    assert open_vault(vault, "oot2", "report", "first")[1] == 1
    assert open_vault(vault, "oot", "gate", "third")[1] == 3


def test_a_dataset_of_another_name_with_the_same_rows_keeps_counting(vault: Settings) -> None:
    from marketray.dataset.stage import run_dataset

    open_vault(vault, "oot", "gate", "first")
    renamed = vault.model_copy(update={"name": "renamed"})
    run_dataset(renamed)
    assert open_vault(renamed, "oot", "gate", "other")[1] == 2


def test_an_opening_is_recorded_before_rows_are_handed_out(
    vault: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("marketray.dataset.vault.read_block", killed)
    with pytest.raises(KeyboardInterrupt):
        open_vault(vault, "oot", "gate", "first")
    ledger = Lake(vault.lake_uri).read_json(LEDGER)
    assert ledger == {
        load_split(vault).blocks["oot"].row_id_hash: {"split": "oot", "purposes": ["first"]},
    }


@pytest.mark.parametrize(
    ("split", "reader"), [("oot", "report"), ("oot2", "gate"), ("oot", "tuning"), ("train", "gate")]
)
def test_other_readers_are_refused(vault: Settings, split: str, reader: str) -> None:
    with pytest.raises(VaultError, match="required: gate for oot, report for oot2"):
        open_vault(vault, split, reader, "key")  # type: ignore[arg-type]
    assert openings(vault, "oot") == openings(vault, "oot2") == 0


def test_an_opening_needs_a_purpose(vault: Settings) -> None:
    with pytest.raises(VaultError, match="purpose_key is empty"):
        open_vault(vault, "oot", "gate", "")


def test_changed_and_missing_rows_are_refused_and_spend_no_opening(vault: Settings) -> None:
    lake = Lake(vault.lake_uri)
    partition = lake.partitions(VAULT, split="oot")[0]
    table = lake.read(VAULT, partition)
    manifest = lake.manifest(VAULT, partition)
    assert manifest is not None
    y = table.column_names.index("label_return")
    better = table.set_column(y, "label_return", [np.zeros(table.num_rows)])
    lake.write(VAULT, partition, better, manifest)
    with pytest.raises(VaultError, match="rows are not those that the dataset stage wrote"):
        open_vault(vault, "oot", "gate", "first")
    less = table.slice(1)
    lake.write(VAULT, partition, less, Manifest("k", table_hash(less), less.num_rows, less.num_rows))
    with pytest.raises(VaultError, match=rf"got {load_split(vault).blocks['oot'].rows - 1} rows"):
        open_vault(vault, "oot", "gate", "first")
    lake.delete(VAULT, partition)
    with pytest.raises(VaultError, match="run the dataset stage again"):
        open_vault(vault, "oot", "gate", "first")
    assert openings(vault, "oot") == 0


def test_without_a_dataset_there_is_no_vault(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"split\.json"):
        open_vault(small_settings(tmp_path), "oot", "gate", "key")
