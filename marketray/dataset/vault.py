"""Opening the vault: OOT rows for the gate, OOT2 rows for the report, every opening counted.

The ledger (``gold/vault/ledger.json``) is keyed by the row-id hash of the opened rows, so the count follows
the rows and not the name of a dataset. The k-th opening of the same OOT rows tests at α / 2^k. Asking again
with the same evidence, as an interrupted run does, is the same opening.
"""

from __future__ import annotations

from typing import Any, Literal

from marketray.dataset.load import DATASET, VAULT, Block, load_split, read_block
from marketray.errors import VaultError
from marketray.hashing import table_hash
from marketray.lake import Lake
from marketray.settings import Settings

__all__ = ["LEDGER", "Reader", "VaultSplit", "open_vault", "openings"]

LEDGER = f"{VAULT}/ledger.json"

VaultSplit = Literal["oot", "oot2"]
Reader = Literal["gate", "report"]

_READER_OF: dict[str, str] = {"oot": "gate", "oot2": "report"}


def open_vault(settings: Settings, split: VaultSplit, reader: Reader, purpose_key: str) -> tuple[Block, int]:
    """Rows of OOT or OOT2, and which opening of these rows this is.

    Parameters
    ----------
    settings:
        Names the lake, the dataset and the instrument.
    split:
        ``oot`` or ``oot2``.
    reader:
        Who reads: the gate reads OOT, the report reads OOT2, nothing else reads either.
    purpose_key:
        Digest of the evidence that is asked for (candidates, dataset, settings). The same key again is the
        same opening.

    Returns
    -------
    tuple
        (rows, k): k = 1 for the first opening. The opening is recorded before a row is read.

    Raises
    ------
    VaultError
        This reader may not read this split, the key is empty, or the stored rows are missing or were changed
        after the dataset stage wrote them.
    LakeError
        There is no dataset of this name.
    """
    if _READER_OF.get(split) != reader:
        msg = f"open_vault: reader={reader!r} asked for {split!r}; required: gate for oot, report for oot2"
        raise VaultError(msg, hint="tuning and selection use load_blocks: train, validation and test only")
    if not purpose_key:
        msg = "open_vault: purpose_key is empty; required: a digest of the evidence asked for"
        raise VaultError(msg, hint="pass marketray.hashing.digest(…) over candidates, dataset and settings")
    stored = load_split(settings)
    lake = Lake(settings.lake_uri)
    _require_intact(settings, lake, split, stored.blocks[split].rows)
    rows_hash = stored.blocks[split].row_id_hash
    ledger: dict[str, Any] = lake.read_json(LEDGER) or {}
    entry = ledger.setdefault(rows_hash, {"split": split, "purposes": []})
    if purpose_key not in entry["purposes"]:
        entry["purposes"].append(purpose_key)
        lake.write_json(LEDGER, ledger)
    k = entry["purposes"].index(purpose_key) + 1
    return read_block(settings, stored, [split], VAULT), k


def openings(settings: Settings, split: VaultSplit) -> int:
    """How often the current rows of `split` have been opened; opens nothing."""
    rows_hash = load_split(settings).blocks[split].row_id_hash
    ledger = Lake(settings.lake_uri).read_json(LEDGER) or {}
    return len(ledger.get(rows_hash, {"purposes": []})["purposes"])


def _require_intact(settings: Settings, lake: Lake, split: str, rows: int) -> None:
    """Refuse rows that differ from what the dataset stage wrote, before an opening is spent on them."""
    keys = {"name": settings.name, "split": split, "instrument": settings.instrument}
    found = 0
    for partition in lake.partitions(VAULT, **keys):
        manifest = lake.manifest(VAULT, partition)
        table = lake.read(VAULT, partition)
        if manifest is None or table_hash(table) != manifest.content:
            msg = f"{VAULT} {partition}: the rows are not those that the dataset stage wrote"
            raise VaultError(msg, hint="delete this partition and run the dataset stage again")
        found += table.num_rows
    if found != rows:
        msg = (
            f"{VAULT} split={split}: got {found} rows; required: the {rows} rows of {DATASET}'s split object"
        )
        raise VaultError(msg, hint="run the dataset stage again")
