"""Accepted articles by month: written aside while files are read, freed of copies, put into bronze.

Of articles that share an address, a text or an id of their source the first to be known stays. An article
stays where it is the first for each of its keys, over all files together; this depends on the articles
alone, not on the order in which they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import polars as pl
import pyarrow as pa

from marketray.hashing import digest, table_hash
from marketray.ingest.article_rows import KEYS, with_keys
from marketray.ingest.bronze import ARTICLES, Published
from marketray.ingest.schemas import ARTICLE_SCHEMA
from marketray.lake import Lake, Manifest

__all__ = ["STORED", "ArticleStore", "copies"]

STORED = ARTICLE_SCHEMA.append(pa.field("file", pa.string()))
"""`ARTICLE_SCHEMA` and the `file` that an article came from."""

_KIND = "files"
_STAGING = "staging/articles"
_SPILL_ROWS = 32_768
_IN_BRONZE = -1  # instead of the number of a part that was written aside
_REASONS = dict(zip(KEYS, ("same_url", "same_text", "same_id"), strict=True))
_INDEX: dict[str, pl.DataType | type[pl.DataType]] = {
    "available_at": pl.Datetime("us", "UTC"),
    "rank": pl.Int64,
    "file": pl.Int32,
    "line": pl.Int64,
    **dict.fromkeys(KEYS, pl.Int64),
    "part": pl.Int32,
    "row": pl.UInt32,
}


def copies(index: pl.DataFrame) -> pl.Series:
    """Why each article is a copy of one known before it: same_url, same_text, same_id, or null.

    Parameters
    ----------
    index:
        `available_at`, `rank`, `file`, `line` and `KEYS`. The article with the earliest `available_at` is
        the first; at the same time rank, file (its place among all names) and line decide.
    """
    order = index.select(pl.struct("available_at", "rank", "file", "line").rank("ordinal").alias("order"))
    frame = index.select(KEYS).with_columns(order)
    first = {k: pl.col("order").min().over(k) for k in KEYS}
    reasons = [
        pl.when(pl.col(k).is_not_null() & (f < pl.col("order"))).then(pl.lit(_REASONS[k]))
        for k, f in first.items()
    ]
    return frame.select(pl.coalesce(reasons).alias("copy"))["copy"]


class ArticleStore:
    """Collects articles and publishes them; only keys and times stay in memory.

    Parameters
    ----------
    replaced:
        Names of files whose articles in bronze give way to what is read now; those of others stay.

    Attributes
    ----------
    rows:
        Articles taken so far.
    duplicates:
        After `publish`: copies among them, by reason.
    displaced:
        After `publish`: articles of other files that gave way to a copy known before them.
    """

    def __init__(self, lake: Lake, instrument: str, replaced: Collection[str]) -> None:
        self._lake, self._instrument, self._replaced = lake, instrument, list(replaced)
        self._waiting: list[pl.DataFrame] = []
        self._index: list[pl.DataFrame] = []
        self._parts: dict[str, list[int]] = {}
        self._files: dict[str, int] = {}
        self.rows = 0
        self.duplicates: Counter[str] = Counter()
        self.displaced = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take articles with `file`, `line`, the columns of `ARTICLE_SCHEMA`, `KEYS` and `rank`."""
        self.rows += len(frame)
        self._waiting.append(frame)
        if sum(map(len, self._waiting)) >= _SPILL_ROWS:
            self._spill()

    def publish(self) -> Published:
        """Put the first of all copies into bronze; months that are right already stay untouched."""
        self._spill()
        stored = [p["month"] for p in self._lake.partitions(ARTICLES, instrument=self._instrument)]
        for month in stored:
            self._index_of(with_keys(self._others(month)).with_columns(line=pl.lit(0)), _IN_BRONZE)
        index = pl.concat([pl.DataFrame(schema=_INDEX), *self._index])
        self._index = []
        by_name = {self._files[name]: i for i, name in enumerate(sorted(self._files))}
        index = index.with_columns(pl.col("file").replace_strict(by_name, return_dtype=pl.Int32))
        index = index.with_columns(copies(index), month=_month(pl.col("available_at")))
        new = pl.col("part") != _IN_BRONZE
        copied = index.filter(new)["copy"].drop_nulls()
        self.duplicates = Counter(sorted(copied.to_list()))
        self.displaced = len(index.filter(~new & pl.col("copy").is_not_null()))
        kept = index.filter(pl.col("copy").is_null()).select("month", "part", "row")
        months = kept.partition_by("month", as_dict=True, include_key=False)
        done = Published(rows=self.rows - len(copied))
        for (month,), rows in sorted(months.items()):
            self._put(str(month), self._month(str(month), rows), done)
        for month in sorted(set(stored) - {str(month) for (month,) in months}):
            self._lake.delete(ARTICLES, {"instrument": self._instrument, "month": month})
        return done

    def _spill(self) -> None:
        if not sum(map(len, self._waiting)):
            return
        frame = pl.concat(self._waiting).with_columns(month=_month(pl.col("available_at")))
        self._waiting = []
        parts = frame.partition_by("month", as_dict=True, include_key=False)
        number = max((max(parts) for parts in self._parts.values()), default=0) + 1
        for (month,), rows in parts.items():
            self._parts.setdefault(str(month), []).append(number)
            self._index_of(rows, number)
            table = rows.select(STORED.names).to_arrow().cast(STORED)
            manifest = Manifest("", "", table.num_rows, table.num_rows)
            self._lake.write(_STAGING, self._aside(str(month), number), table, manifest)

    def _index_of(self, frame: pl.DataFrame, part: int) -> None:
        for name in frame["file"].unique():
            self._files.setdefault(name, len(self._files))
        file = pl.col("file").replace_strict(self._files, return_dtype=pl.Int32)
        frame = frame.with_row_index("row").with_columns(file, part=pl.lit(part, pl.Int32))
        self._index.append(frame.select(pl.col(name).cast(kind) for name, kind in _INDEX.items()))

    def _others(self, month: str) -> pl.DataFrame:
        """A month's articles in bronze from files that are not read now, in their order."""
        partition = {"instrument": self._instrument, "month": month}
        found = self._lake.manifest(ARTICLES, partition)
        if found is None or found.detail.get("kind") != _KIND:
            table = STORED.empty_table()
        else:
            table = self._lake.read(ARTICLES, partition)
        return _frame(table).filter(~pl.col("file").is_in(self._replaced))

    def _month(self, month: str, rows: pl.DataFrame) -> pa.Table:
        """The kept `rows` (part, row) of a month, from where they were written aside and from bronze."""
        wanted = {part: frame["row"] for (part,), frame in rows.partition_by("part", as_dict=True).items()}
        frames = []
        for number in self._parts.get(month, []):
            if number in wanted:
                table = self._lake.read(_STAGING, self._aside(month, number))
                frames.append(_frame(table)[wanted[number]])
        if _IN_BRONZE in wanted:
            frames.append(self._others(month)[wanted[_IN_BRONZE]])
        frame = pl.concat(frames).sort("available_at", "article_id", "source", "url", "title", "body")
        return frame.to_arrow().cast(STORED)

    def _put(self, month: str, table: pa.Table, done: Published) -> None:
        partition = {"instrument": self._instrument, "month": month}
        content, rows = table_hash(table), table.num_rows
        key = digest(ARTICLES, content, _KIND)
        if self._lake.is_current(ARTICLES, partition, key):
            done.skipped += 1
        else:
            manifest = Manifest(key, content, rows, rows, detail={"kind": _KIND})
            self._lake.write(ARTICLES, partition, table, manifest)
            done.written += 1
        done.partitions.append({"dataset": ARTICLES, "month": month, "rows": rows, "content": content})

    def _aside(self, month: str, number: int) -> dict[str, Any]:
        return {"instrument": self._instrument, "month": month, "part": f"{number:06d}"}


def _month(time: pl.Expr) -> pl.Expr:
    return time.dt.strftime("%Y-%m")


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table.replace_schema_metadata(None))
    assert isinstance(frame, pl.DataFrame)
    return frame.select(STORED.names)
