"""Reading the dataset as matrices. Only train, validation and test can be read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from marketray.dataset.rows import row_id_hash, utc_series
from marketray.dataset.splits import OPEN_SPLITS, SPLITS, VAULT_SPLITS, Split
from marketray.errors import DataError, LakeError, VaultError
from marketray.hashing import digest
from marketray.lake import Lake
from marketray.settings import Settings

__all__ = [
    "DATASET",
    "VAULT",
    "Block",
    "dataset_content",
    "load_blocks",
    "load_split",
    "read_block",
    "split_path",
]

DATASET = "gold/dataset"
"""Train, validation and test rows: {name, split, instrument, month}."""

VAULT = "gold/vault"
"""OOT and OOT2 rows, a separate tree with the same keys."""

_HINT = "run the dataset stage (marketray dataset) first"


@dataclass(frozen=True)
class Block:
    """Rows in time order with their labels and features.

    Attributes
    ----------
    row_ids:
        ``instrument@YYYYmmddTHHMM`` of decision_at, shape (n,).
    decision_us, session_open_us, label_end_us:
        Decision time, the session's open and the label's end, int64 microseconds since the epoch, UTC,
        shape (n,). The label covers (decision, label end].
    y:
        The label: simple return over the horizon, a fraction, shape (n,).
    close:
        Last close at the decision, price, shape (n,).
    columns:
        Feature names, length p.
    values:
        Features, float32, C-contiguous, NaN where null, shape (n, p).
    """

    row_ids: npt.NDArray[np.str_]
    decision_us: npt.NDArray[np.int64]
    session_open_us: npt.NDArray[np.int64]
    label_end_us: npt.NDArray[np.int64]
    y: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def decision_at(self) -> pl.Series:
        """Decision times, Datetime us UTC, shape (n,)."""
        return utc_series("decision_at", self.decision_us)

    @property
    def up(self) -> npt.NDArray[np.float64]:
        """The direction label: 1.0 where y > 0, else 0.0, shape (n,)."""
        return (self.y > 0).astype(np.float64)

    @property
    def row_id_hash(self) -> str:
        """Digest of the row ids in order."""
        return row_id_hash(self.row_ids)

    def select(self, columns: Sequence[str]) -> Block:
        """The same rows with these feature columns, in this order.

        Raises
        ------
        DataError
            A column is unknown.
        """
        if tuple(columns) == self.columns:
            return self
        position = {name: i for i, name in enumerate(self.columns)}
        unknown = [name for name in columns if name not in position]
        if unknown:
            msg = f"columns {unknown} are not in this block; it has {len(self.columns)} columns"
            raise DataError(msg, hint="build the dataset with these features, or ask for those it has")
        values = np.ascontiguousarray(self.values[:, [position[name] for name in columns]])
        return replace(self, columns=tuple(columns), values=values)

    def take(self, rows: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Block:
        """The rows that a slice, positions or a mask pick, with all columns."""
        return Block(
            self.row_ids[rows],
            self.decision_us[rows],
            self.session_open_us[rows],
            self.label_end_us[rows],
            self.y[rows],
            self.close[rows],
            self.columns,
            np.ascontiguousarray(self.values[rows]),
        )


def split_path(name: str) -> str:
    """Where the split object of a dataset lies below the lake's root."""
    return f"{DATASET}/name={name}/split.json"


def load_split(settings: Settings) -> Split:
    """The stored split of the settings' dataset.

    Raises
    ------
    LakeError
        There is none, or it belongs to another instrument.
    """
    value = Lake(settings.lake_uri).read_json(split_path(settings.name))
    if value is None:
        msg = f"dataset {settings.name!r} has no {split_path(settings.name)} in {settings.lake_uri}"
        raise LakeError(msg, hint=_HINT)
    split = Split.from_json(value)
    if split.instrument != settings.instrument:
        msg = (
            f"dataset {settings.name!r} holds {split.instrument}; required: instrument={settings.instrument}"
        )
        raise LakeError(msg, hint=_HINT)
    return split


def load_blocks(settings: Settings, splits: Sequence[str] = ("train", "validation")) -> Block:
    """Rows of the named splits in time order.

    Parameters
    ----------
    settings:
        Names the lake, the dataset and the instrument.
    splits:
        Any of train, validation and test.

    Raises
    ------
    VaultError
        OOT or OOT2 rows are asked for: they are read through `marketray.dataset.vault` only.
    DataError
        A split is unknown, or none is named.
    LakeError
        The dataset is missing, or its files do not belong to its split object.
    """
    locked = [s for s in splits if s in VAULT_SPLITS]
    if locked:
        msg = f"load_blocks: splits={list(splits)} names {locked}, which are in the vault"
        raise VaultError(
            msg, hint="only the gate reads oot and only the report reads oot2, through open_vault"
        )
    unknown = [s for s in splits if s not in OPEN_SPLITS]
    if unknown or not splits:
        msg = f"load_blocks: got splits={list(splits)}; required: one or more of {list(OPEN_SPLITS)}"
        raise DataError(msg)
    split = load_split(settings)
    return read_block(settings, split, [s for s in SPLITS if s in splits], DATASET)


def dataset_content(settings: Settings, splits: Sequence[str] = ("train", "validation")) -> str:
    """Digest of the rows and columns of these splits, from the partitions' manifests alone."""
    lake = Lake(settings.lake_uri)
    split = load_split(settings)
    contents = []
    for name in splits:
        keys = {"name": settings.name, "split": name, "instrument": settings.instrument}
        dataset = VAULT if name in VAULT_SPLITS else DATASET
        for partition in lake.partitions(dataset, **keys):
            found = lake.manifest(dataset, partition)
            contents.append([name, partition["month"], found.content if found else None])
    return digest(contents, split.columns, [split.blocks[s].row_id_hash for s in splits])


def read_block(settings: Settings, split: Split, names: Sequence[str], dataset: str) -> Block:
    """Read whole splits of one tree and check them against the split object.

    Raises
    ------
    LakeError
        Rows are missing, or are not those of the split object.
    """
    lake = Lake(settings.lake_uri)
    n = sum(split.blocks[name].rows for name in names)
    values = np.empty((n, len(split.columns)), dtype=np.float32)
    heads: list[pa.Table] = []
    row = 0
    for name in names:
        keys = {"name": settings.name, "split": name, "instrument": settings.instrument}
        first = row
        for partition in lake.partitions(dataset, **keys):
            table = lake.read(dataset, partition, [*_HEAD, *split.columns])
            stop = row + table.num_rows
            if stop > n:
                break
            _fill(values[row:stop], table, split.columns)
            heads.append(table.select(_HEAD))
            row = stop
        _require_same(settings, split, name, heads, row - first)
    return _block(pa.concat_tables(heads), split.columns, values)


_HEAD = ["row_id", "decision_at", "session_open_at", "label_end_at", "label_return", "close"]


def _fill(out: npt.NDArray[np.float32], table: pa.Table, columns: Sequence[str]) -> None:
    for i, name in enumerate(columns):
        out[:, i] = table[name].to_numpy()


def _require_same(settings: Settings, split: Split, name: str, heads: list[pa.Table], rows: int) -> None:
    block = split.blocks[name]
    if rows == block.rows:
        ids = pa.concat_tables(heads)["row_id"].slice(sum(h.num_rows for h in heads) - rows)
        if row_id_hash(pl.Series(ids)) == block.row_id_hash:
            return
    msg = f"dataset {settings.name!r}: the files of {name} are not the {block.rows} rows of its split object"
    raise LakeError(msg, hint=_HINT)


def _block(head: pa.Table, columns: tuple[str, ...], values: npt.NDArray[np.float32]) -> Block:
    def us(name: str) -> npt.NDArray[np.int64]:
        return np.asarray(head[name].cast(pa.int64()).to_numpy(), dtype=np.int64)

    return Block(
        row_ids=np.array(head["row_id"].to_pylist(), dtype=np.str_),
        decision_us=us("decision_at"),
        session_open_us=us("session_open_at"),
        label_end_us=us("label_end_at"),
        y=np.array(head["label_return"].to_numpy(), dtype=np.float64),
        close=np.array(head["close"].to_numpy(), dtype=np.float64),
        columns=columns,
        values=values,
    )
