"""The medallion store: atomic, idempotent Parquet partitions with their manifests.

A dataset is a folder such as ``bronze/bars``; a partition is ``instrument=X/month=2018-01`` below it
and holds one file, ``part.parquet`` (zstd). The file is written aside and renamed, so a reader sees all
of it or none. Its manifest (the key that says from which inputs and which code it came, and the row
counts) is stored in the Parquet footer, so data and manifest can never disagree. Manifests hold no
clock time: the same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from marketray.errors import LakeError

__all__ = ["Lake", "Manifest", "Partition"]

_FILE = "part.parquet"
_FOOTER_KEY = b"marketray.manifest"

Partition = dict[str, str]
"""Hive keys in order, e.g. ``{"instrument": "SPX500_USD", "month": "2018-01"}``."""


@dataclass(frozen=True)
class Manifest:
    """What a partition is made of; rows_in = rows_out + rows_quarantined + rows_dropped.

    Attributes
    ----------
    key:
        Digest of the inputs' content, the code and the settings that produced the partition.
    content:
        Digest of the partition's own rows (`marketray.hashing.table_hash`).
    rows_in, rows_out, rows_quarantined, rows_dropped:
        Row counts. Dropped rows are those that a rule leaves out by design, such as rows without a
        label; their reasons are in `detail`.
    detail:
        Further JSON values, such as counts by reason.
    """

    key: str
    content: str
    rows_in: int
    rows_out: int
    rows_quarantined: int = 0
    rows_dropped: int = 0
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows_in != self.rows_out + self.rows_quarantined + self.rows_dropped:
            msg = (
                f"manifest: rows_in={self.rows_in} but rows_out={self.rows_out} + rows_quarantined="
                f"{self.rows_quarantined} + rows_dropped={self.rows_dropped}; required: equal"
            )
            raise LakeError(msg)


class Lake:
    """A store below one root, a local path or a URI that `pyarrow.fs` understands (s3://, gs://, file://).

    Objects are cheap and hold no open files; pass the URI between processes and build a Lake in each.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self._fs, self._root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, OSError) as e:
            msg = f"lake={uri!r} cannot be opened: {e}"
            raise LakeError(msg, hint="use an absolute path or a URI such as s3://bucket/lake") from e

    @property
    def is_local(self) -> bool:
        """Whether the lake is on this machine's own file system."""
        return isinstance(self._fs, fs.LocalFileSystem)

    def path(self, dataset: str, partition: Partition | None = None) -> str:
        """Folder of a dataset or of one of its partitions."""
        parts = [f"{k}={v}" for k, v in (partition or {}).items()]
        return "/".join([self._root.rstrip("/"), dataset, *parts])

    def write(self, dataset: str, partition: Partition, table: pa.Table, manifest: Manifest) -> None:
        """Store `table` as the whole of `partition`: all of it or nothing appears.

        Raises
        ------
        LakeError
            The file cannot be written (disk full, no permission); nothing is left behind.
        """
        if manifest.rows_out != table.num_rows:
            msg = f"{dataset} {partition}: manifest says {manifest.rows_out} rows, got {table.num_rows}"
            raise LakeError(msg)
        footer = {_FOOTER_KEY: json.dumps(asdict(manifest), sort_keys=True).encode()}
        table = table.replace_schema_metadata(footer)

        # a dictionary of floats that hardly repeat costs time and space
        repeating = [f.name for f in table.schema if not pa.types.is_floating(f.type)]

        def put(path: str) -> None:
            pq.write_table(
                table, path, filesystem=self._fs, compression="zstd", use_dictionary=repeating or False
            )

        self._replace(f"{self.path(dataset, partition)}/{_FILE}", put)

    def manifest(self, dataset: str, partition: Partition) -> Manifest | None:
        """The partition's manifest, or None where there is no (readable) partition."""
        path = f"{self.path(dataset, partition)}/{_FILE}"
        if self._kind(path) != fs.FileType.File:
            return None
        try:
            metadata = pq.read_schema(path, filesystem=self._fs).metadata or {}
        except (pa.ArrowInvalid, OSError) as e:
            msg = f"{path}: not a readable Parquet file ({e})"
            raise LakeError(msg, hint="delete this file and run the stage again") from e
        if _FOOTER_KEY not in metadata:
            msg = f"{path}: was not written by marketray (no manifest in its footer)"
            raise LakeError(msg, hint="move this file away and run the stage again")
        return Manifest(**json.loads(metadata[_FOOTER_KEY]))

    def is_current(self, dataset: str, partition: Partition, key: str) -> bool:
        """Whether the partition exists and was made from the inputs and code that `key` stands for."""
        found = self.manifest(dataset, partition)
        return found is not None and found.key == key

    def read(self, dataset: str, partition: Partition, columns: Sequence[str] | None = None) -> pa.Table:
        """One partition's rows.

        Raises
        ------
        LakeError
            There is no such partition, or a column is missing from it.
        """
        path = f"{self.path(dataset, partition)}/{_FILE}"
        try:
            with self._fs.open_input_file(path) as source:
                file = pq.ParquetFile(source)
                missing = set(columns or ()) - set(file.schema_arrow.names)
                if missing:
                    msg = f"{path}: lacks the columns {sorted(missing)}"
                    raise LakeError(msg, hint="run the stage that writes this dataset again")
                return file.read(columns=list(columns) if columns is not None else None)
        except FileNotFoundError as e:
            msg = f"{dataset}: no partition {partition} in {self.uri}"
            raise LakeError(msg, hint="run the stage that writes this dataset first") from e
        except (pa.ArrowInvalid, OSError) as e:
            msg = f"{path}: cannot be read ({e})"
            raise LakeError(msg, hint="delete this file and run the stage again") from e

    def null_counts(self, dataset: str, partition: Partition) -> dict[str, int]:
        """Missing values of each column, in column order, from the file's footer alone.

        Raises
        ------
        LakeError
            There is no such partition, or it cannot be read.
        """
        path = f"{self.path(dataset, partition)}/{_FILE}"
        try:
            footer = pq.read_metadata(path, filesystem=self._fs)
        except (pa.ArrowInvalid, OSError) as e:
            msg = f"{path}: cannot be read ({e})"
            raise LakeError(msg, hint="run the stage that writes this dataset again") from e
        counts = dict.fromkeys(footer.schema.to_arrow_schema().names, 0)
        for group in range(footer.num_row_groups):
            for i, name in enumerate(counts):  # flat schemas: one Parquet column each
                counts[name] += footer.row_group(group).column(i).statistics.null_count
        return counts

    def partitions(self, dataset: str, **keys: str) -> list[Partition]:
        """Partitions of a dataset in sorted order; `keys` keeps those with these hive values.

        Raises
        ------
        LakeError
            A partition file lies in a folder that is not named ``key=value``.
        """
        root = self.path(dataset)
        selector = fs.FileSelector(self._narrowed(root, keys), allow_not_found=True, recursive=True)
        found = []
        for info in self._look(selector):
            if info.base_name != _FILE:
                continue
            folders = info.path[len(root) + 1 : -len(_FILE) - 1].split("/")
            if not all("=" in folder for folder in folders):
                msg = f"{info.path}: lies in a folder that is no partition; required: key=value folders"
                raise LakeError(msg, hint="move this file out of the lake")
            partition = dict(folder.split("=", 1) for folder in folders)
            if all(partition.get(k) == v for k, v in keys.items()):
                found.append(partition)
        return sorted(found, key=lambda p: tuple(p.values()))

    def _narrowed(self, root: str, keys: dict[str, str]) -> str:
        """The folder below `root` that holds all partitions with these hive values, as far as they lead."""
        for name, value in keys.items():
            folder = f"{root}/{name}={value}"
            if self._kind(folder) != fs.FileType.Directory:
                break
            root = folder
        return root

    def scan(
        self, dataset: str, columns: Sequence[str] | None = None, **keys: str
    ) -> Iterator[tuple[Partition, pa.Table]]:
        """Partitions with their rows, one at a time, in sorted order."""
        for partition in self.partitions(dataset, **keys):
            yield partition, self.read(dataset, partition, columns)

    def delete(self, dataset: str, partition: Partition | None = None) -> None:
        """Remove a partition, or a whole dataset; nothing happens where there is none."""
        path = self.path(dataset, partition)
        if self._kind(path) == fs.FileType.Directory:
            self._fs.delete_dir(path)

    def write_json(self, name: str, value: Any) -> None:
        """Store a JSON document at `name` below the root, all of it or nothing."""
        data = (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

        def put(path: str) -> None:
            with self._fs.open_output_stream(path) as out:
                out.write(data)

        self._replace(f"{self._root.rstrip('/')}/{name}", put)

    def read_json(self, name: str) -> Any:
        """The JSON document at `name`, or None where there is none.

        Raises
        ------
        LakeError
            The document cannot be read or is not JSON.
        """
        path = f"{self._root.rstrip('/')}/{name}"
        if self._kind(path) != fs.FileType.File:
            return None
        try:
            with self._fs.open_input_stream(path) as source:
                return json.loads(source.read())
        except (OSError, ValueError) as e:
            msg = f"{path}: not a readable JSON document ({e})"
            raise LakeError(msg, hint="delete this file and run the stage that writes it again") from e

    def _look(self, where: str | fs.FileSelector) -> Any:
        """What the file system knows of a path, or of all files below a folder."""
        try:
            return self._fs.get_file_info(where)
        except OSError as e:
            msg = f"lake={self.uri!r} cannot be reached: {e}"
            raise LakeError(msg, hint="check the address, the network and the credentials") from e

    def _kind(self, path: str) -> fs.FileType:
        return self._look(path).type

    def _replace(self, path: str, put: Any) -> None:
        """Write aside with `put(temporary path)`, then rename over `path`."""
        folder, name = path.rsplit("/", 1)
        aside = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            self._fs.create_dir(folder, recursive=True)
            self._remove_leftovers(folder, name)
            put(aside)
            self._fs.move(aside, path)
        except OSError as e:
            with contextlib.suppress(OSError):  # the first failure is the one to report
                self._remove_leftovers(folder, name)
            msg = f"{path}: cannot be written ({e})"
            raise LakeError(msg, hint="free space or fix the permissions, then run again") from e

    def _remove_leftovers(self, folder: str, name: str) -> None:
        """Delete what killed writers of this file left aside (a partition has one writer at a time)."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if info.base_name.startswith(f".{name}.") and info.base_name.endswith(".tmp"):
                self._fs.delete_file(info.path)
