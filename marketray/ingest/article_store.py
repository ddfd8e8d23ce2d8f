"""Accepted articles by month: written aside while files are read, freed of copies, put into bronze.

Of articles that share an address, a text or an id of their source the first to be known stays. An article
stays where it is the first for each of its keys, over all files together, those of earlier ingests and the
copies among them included: copies are kept aside in ``bronze/article_copies``. What stays depends on the
articles alone, not on the order in which they came, nor on how they were cut into ingests.
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

__all__ = ["COPIED", "COPIES", "STORED", "ArticleStore", "copies"]

COPIES = "bronze/article_copies"

STORED = ARTICLE_SCHEMA.append(pa.field("file", pa.string()))
"""`ARTICLE_SCHEMA` and the `file` that an article came from."""

COPIED = STORED.append(pa.field("reason", pa.string()))
"""`STORED` and why the article is a copy: same_url, same_text or same_id."""

_KIND = "files"
_STAGING = "staging/articles"
_SPILL_ROWS = 32_768
_KEPT, _COPIED = -1, -2  # instead of the number of a part that was written aside: a row of the lake
_LAKE = {_KEPT: ARTICLES, _COPIED: COPIES}
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
    displaced, restored:
        After `publish`: articles of other files that gave way to a copy known before them, and copies of
        other files that are none any more, since the first of them was in a file that is read again.
    known:
        After `publish`: first and last `available_at` (ISO 8601, UTC) and number of all stored articles by
        source; those that name none stand under "".
    """

    def __init__(self, lake: Lake, instrument: str, replaced: Collection[str]) -> None:
        self._lake, self._instrument, self._replaced = lake, instrument, list(replaced)
        self._waiting: list[pl.DataFrame] = []
        self._index: list[pl.DataFrame] = []
        self._parts: dict[str, list[int]] = {}
        self._files: dict[str, int] = {}
        self.rows = 0
        self.duplicates: Counter[str] = Counter()
        self.displaced = self.restored = 0
        self.known: dict[str, dict[str, Any]] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take articles with `file`, `line`, the columns of `ARTICLE_SCHEMA`, `KEYS` and `rank`."""
        self.rows += len(frame)
        self._waiting.append(frame)
        if sum(map(len, self._waiting)) >= _SPILL_ROWS:
            self._spill()

    def publish(self) -> Published:
        """Put the first of all copies into bronze; months that are right already stay untouched."""
        self._spill()
        before: set[str] = set()
        for number, dataset in _LAKE.items():
            for partition in self._lake.partitions(dataset, instrument=self._instrument):
                before.add(partition["month"])
                others = with_keys(self._others(dataset, partition["month"]))
                self._index_of(others.with_columns(line=pl.lit(0)), number)
        index = self._judged()
        part, copied = pl.col("part"), pl.col("copy").is_not_null()
        self.duplicates = Counter(sorted(index.filter(part > 0, copied)["copy"].to_list()))
        self.displaced = len(index.filter(part == _KEPT, copied))
        self.restored = len(index.filter(part == _COPIED, ~copied))
        rows = index.filter(~pl.col("again")).select("month", "part", "row", "copy")
        months = {str(m): own for (m,), own in rows.partition_by("month", as_dict=True).items()}
        done = Published(rows=self.rows - self.duplicates.total())
        for month in sorted(before | set(months)):
            self._publish_month(month, months.get(month, rows.clear()), done)
        return done

    def _judged(self) -> pl.DataFrame:
        """The index with `month`, why a row is a `copy`, and whether the same row of its file stands there
        already, `again`: it could never take the place of that one.
        """
        index = pl.concat([pl.DataFrame(schema=_INDEX), *self._index])
        self._index = []
        by_name = {self._files[name]: i for i, name in enumerate(sorted(self._files))}
        index = index.with_columns(pl.col("file").replace_strict(by_name, return_dtype=pl.Int32))
        index = index.with_columns(copies(index), month=_month(pl.col("available_at")))
        index = index.sort(pl.col("copy").is_not_null(), maintain_order=True)
        return index.with_columns(again=~pl.struct("rank", "file").is_first_distinct())

    def _publish_month(self, month: str, rows: pl.DataFrame, done: Published) -> None:
        """Articles and copies of a month. A row that changes sides is, at every moment, in one of them."""
        copied = pl.col("copy").is_not_null()
        articles = self._month(month, rows.filter(~copied), STORED)
        aside = self._month(month, rows.filter(copied), COPIED)
        back = rows.filter(copied | (pl.col("part") == _COPIED))
        if len(back) > aside.num_rows:
            self._put(COPIES, month, self._month(month, back, COPIED))
            self._put(ARTICLES, month, articles, done)
            self._put(COPIES, month, aside, done)
        else:
            self._put(COPIES, month, aside, done)
            self._put(ARTICLES, month, articles, done)
        self._note(articles)

    def _note(self, articles: pa.Table) -> None:
        """Add a month's articles to what is known of each source; months come in order."""
        time = pl.col("available_at")
        spans = _frame(articles).group_by(pl.col("source").fill_null(""), maintain_order=True)
        for source, first, last, count in spans.agg(time.min(), time.max().alias("last"), pl.len()).rows():
            noted = self.known.setdefault(source, {"first": first.isoformat(), "last": "", "articles": 0})
            noted |= {"last": last.isoformat(), "articles": noted["articles"] + count}

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

    def _others(self, dataset: str, month: str) -> pl.DataFrame:
        """A month's articles in the lake from files that are not read now, in their order."""
        partition = {"instrument": self._instrument, "month": month}
        found = self._lake.manifest(dataset, partition)
        if found is None or found.detail.get("kind") != _KIND:
            table = STORED.empty_table()
        else:
            table = self._lake.read(dataset, partition)
        return _frame(table).filter(~pl.col("file").is_in(self._replaced))

    def _month(self, month: str, rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
        """The `rows` (part, row, copy) of a month, from where they were written aside and from the lake."""
        frames = [_frame(STORED.empty_table()).with_columns(reason=pl.lit(None, pl.String))]
        for (part,), own in rows.partition_by("part", as_dict=True).items():
            if part in _LAKE:
                frame = self._others(_LAKE[int(part)], month)
            else:
                frame = _frame(self._lake.read(_STAGING, self._aside(month, int(part))))
            frames.append(frame[own["row"]].with_columns(own["copy"].alias("reason")))
        frame = pl.concat(frames).sort("available_at", "article_id", "source", "url", "title", "body", "file")
        return frame.to_arrow().select(schema.names).cast(schema)

    def _put(self, dataset: str, month: str, table: pa.Table, done: Published | None = None) -> None:
        """Make `table` the month of a dataset, no rows being no partition; note it in `done`."""
        partition = {"instrument": self._instrument, "month": month}
        if not table.num_rows:
            self._lake.delete(dataset, partition)
            return
        content, rows = table_hash(table), table.num_rows
        key = digest(dataset, content, _KIND)
        current = self._lake.is_current(dataset, partition, key)
        if not current:
            manifest = Manifest(key, content, rows, rows, detail={"kind": _KIND})
            self._lake.write(dataset, partition, table, manifest)
        if done is not None:
            done.written, done.skipped = done.written + (not current), done.skipped + current
            done.partitions.append({"dataset": dataset, "month": month, "rows": rows, "content": content})

    def _aside(self, month: str, number: int) -> dict[str, Any]:
        return {"instrument": self._instrument, "month": month, "part": f"{number:06d}"}


def _month(time: pl.Expr) -> pl.Expr:
    return time.dt.strftime("%Y-%m")


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table.replace_schema_metadata(None))
    assert isinstance(frame, pl.DataFrame)
    return frame.select(STORED.names)
