"""Accepted rows by month: written aside while a source is read, put into bronze once all of it has passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from marketray.bars import QUOTES, SIZES
from marketray.errors import DataError
from marketray.hashing import digest, table_hash
from marketray.ingest.schemas import bar_schema
from marketray.lake import Lake, Manifest, Partition

__all__ = ["ARTICLES", "BARS", "ORACLE", "Bronze", "Published", "discard_staging"]

BARS, ARTICLES, ORACLE = "bronze/bars", "bronze/articles", "bronze/oracle"

_STAGING = "staging/"


@dataclass
class Published:
    """What publishing did: partitions written and right already, rows stored, and every partition."""

    written: int = 0
    skipped: int = 0
    rows: int = 0
    partitions: list[dict[str, Any]] = field(default_factory=list)


def discard_staging(lake: Lake, instrument: str) -> None:
    """Remove what this or a killed run left aside."""
    for dataset in ("bars", "articles", "oracle", "quarantine"):
        lake.delete(f"{_STAGING}{dataset}", {"instrument": instrument})


class Bronze:
    """Collects sorted bars month by month and publishes them.

    Parameters
    ----------
    interval_minutes:
        Length of a bar; an instrument has bars of one length.
    superseded:
        Time spans (opens of the first and the last bar, us UTC) that the same files filled when their
        stamps or columns were declared otherwise; what bronze has there goes.

    Attributes
    ----------
    rows:
        Bars taken so far.
    first_us, last_us:
        Opens of the first and the last bar, us UTC; None before the first.
    has_volume, has_quotes, has_sizes:
        Whether any bar had a volume above zero, and whether bid and ask, and the sizes there, were given.
    """

    def __init__(
        self,
        lake: Lake,
        instrument: str,
        kind: str,
        *,
        interval_minutes: int = 1,
        superseded: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._lake, self._instrument, self._kind = lake, instrument, kind
        self._interval_minutes, self._superseded = interval_minutes, list(superseded)
        self._waiting: list[pl.DataFrame] = []
        self._month: str | None = None
        self._staged: dict[str, list[str]] = {BARS: [], ARTICLES: [], ORACLE: []}
        self.rows = 0
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.has_volume = False
        self.has_quotes = False
        self.has_sizes = False
        self.outliers = 0

    @property
    def span_us(self) -> tuple[int, int]:
        """Opens of the first and the last bar, us UTC, of at least one bar."""
        assert self.first_us is not None
        assert self.last_us is not None
        return self.first_us, self.last_us

    def add(self, frame: pl.DataFrame) -> None:
        """Take bars that follow all before; their month is that of `time` in UTC."""
        if not len(frame):
            return
        self.rows += len(frame)
        us = frame["time"].to_physical()
        self.first_us = int(us[0]) if self.first_us is None else self.first_us
        self.last_us = int(us[-1])
        self.outliers += int(frame["outlier"].sum())
        if "volume" in frame.columns:
            self.has_volume |= bool((frame["volume"] > 0).any())
        self.has_quotes |= all(name in frame.columns for name in QUOTES)
        self.has_sizes |= all(name in frame.columns for name in SIZES)
        frame = frame.with_columns(month=pl.col("time").dt.strftime("%Y-%m"))
        for (month,), part in frame.partition_by("month", as_dict=True, maintain_order=True).items():
            if month != self._month:
                self._finish_month()
                self._month = str(month)
            self._waiting.append(part)

    def stage(self, dataset: str, month: str, table: pa.Table) -> None:
        """Set aside the rows of a month of articles or of the oracle."""
        partition = {"instrument": self._instrument, "month": month}
        manifest = Manifest("", "", table.num_rows, table.num_rows)
        self._lake.write(f"{_STAGING}{dataset.split('/')[1]}", partition, table, manifest)
        self._staged[dataset].append(month)

    def _finish_month(self) -> None:
        if self._month is None:
            return
        frame = pl.concat(self._waiting, how="diagonal")
        self._waiting = []
        table = pa.table(
            {
                f.name: frame[f.name].to_arrow().cast(f.type)
                if f.name in frame.columns
                else pa.nulls(len(frame), f.type)
                for f in bar_schema()
            },
            schema=bar_schema(),
        )
        self.stage(BARS, self._month, table)

    def refuse_mixing(self) -> None:
        """Raise DataError where simulated bars would replace ingested ones, or the bars' lengths differ."""
        for partition, manifest in self._stored(BARS):
            if manifest.detail.get("kind") == "simulator":
                continue
            where = f"{self._lake.uri} (month {partition['month']})"
            if self._kind == "simulator":
                msg = (
                    f"instrument={self._instrument} holds bars from files in {where}; simulated bars must "
                    "not replace them"
                )
                raise DataError(msg, hint="choose another instrument, lake or home for the simulator")
            stored = manifest.detail.get("bar_interval_minutes", self._interval_minutes)
            if stored != self._interval_minutes:
                msg = (
                    f"bar_interval_minutes={self._interval_minutes}: instrument={self._instrument} holds "
                    f"bars of {stored} minutes in {where}; required: one length"
                )
                raise DataError(msg, hint="choose another instrument name for bars of another length")

    def publish(self, volume: str, refused: Counter[str]) -> Published:
        """Put the months that were set aside into bronze; months that are right already stay untouched.

        Rows that bronze has outside the new and the superseded time spans are kept where the source is
        files; simulated rows are always replaced as a whole.

        Parameters
        ----------
        volume:
            ``auto`` (absent where no bar has any), ``present`` or ``absent``.
        refused:
            Quarantined rows by month.
        """
        self._finish_month()
        self._month = None
        done = Published()
        keep_volume = volume == "present" or (volume == "auto" and self.has_volume)
        self._drop_stale()
        self._trim_others()
        for month in self._staged[BARS]:
            self._publish_bars(month, refused[month], done, keep_volume=keep_volume)
        for dataset in (ARTICLES, ORACLE):
            for month in self._staged[dataset]:
                table = self._read_staged(dataset, month)
                self._put(dataset, month, table, digest(dataset, table_hash(table), self._kind), done)
        return done

    def _publish_bars(self, month: str, refused: int, done: Published, *, keep_volume: bool) -> None:
        table = self._read_staged(BARS, month)
        if not keep_volume:
            position = table.schema.get_field_index("volume")
            table = table.set_column(
                position, table.schema.field("volume"), pa.nulls(table.num_rows, pa.float64())
            )
        table = table.select(bar_schema(quotes=self.has_quotes, sizes=self.has_sizes).names)
        key = digest(
            *(BARS, table_hash(table), self._kind, refused, self._edges(table["time"].cast(pa.int64()))),
            self._interval_minutes,
        )
        kept = self._kept(month)
        detail: dict[str, Any] = {}
        if kept is not None and kept.num_rows:
            detail["rows_kept"] = kept.num_rows
            both = pa.concat_tables([kept, table], promote_options="default")
            order = [name for name in bar_schema().names if name in both.column_names]
            table = both.select(order).sort_by("time").combine_chunks()
        self._put(BARS, month, table, key, done, refused=refused, detail=detail)

    def _put(
        self,
        dataset: str,
        month: str,
        table: pa.Table,
        key: str,
        done: Published,
        *,
        refused: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        partition = {"instrument": self._instrument, "month": month}
        content, rows = table_hash(table), table.num_rows
        common = {"kind": self._kind, "bar_interval_minutes": self._interval_minutes}
        manifest = Manifest(key, content, rows + refused, rows, refused, detail={**common, **(detail or {})})
        if self._lake.is_current(dataset, partition, key):
            done.skipped += 1
        else:
            self._lake.write(dataset, partition, table, manifest)
            done.written += 1
        done.partitions.append({"dataset": dataset, "month": month, "rows": rows, "content": content})
        done.rows += rows if dataset == BARS else 0

    def _kept(self, month: str) -> pa.Table | None:
        """Rows of `month` in bronze from other files: those outside this source's and superseded spans."""
        partition = {"instrument": self._instrument, "month": month}
        found = self._lake.manifest(BARS, partition)
        if self._kind == "simulator" or found is None or found.detail.get("kind") != self._kind:
            return None
        old = self._lake.read(BARS, partition).replace_schema_metadata(None)
        us = old["time"].cast(pa.int64()).to_numpy()
        replaced = np.zeros(len(us), bool)
        for first, last in [self.span_us, *self._superseded]:
            replaced |= (us >= first) & (us <= last)
        return old.filter(pa.array(~replaced))

    def _trim_others(self) -> None:
        """Take what this source replaces out of months that it has no bars in."""
        for partition, manifest in self._stored(BARS):
            month = partition["month"]
            kept = None if month in self._staged[BARS] else self._kept(month)
            if kept is None or kept.num_rows == manifest.rows_out:
                continue
            if not kept.num_rows:
                self._lake.delete(BARS, partition)
                continue
            content = table_hash(kept)
            detail = {**manifest.detail, "rows_kept": kept.num_rows}
            key = digest(BARS, content, "trimmed")
            trimmed = Manifest(key, content, kept.num_rows, kept.num_rows, detail=detail)
            self._lake.write(BARS, partition, kept, trimmed)

    def _edges(self, us: pa.ChunkedArray) -> list[int | None]:
        """Where the source begins and ends within a month; None where it reaches over the month's edge."""
        first, last = us[0].as_py(), us[-1].as_py()
        return [first if first == self.first_us else None, last if last == self.last_us else None]

    def _drop_stale(self) -> None:
        """Remove simulated months that this source does not have; ingested months always stay."""
        for dataset in (BARS, ARTICLES, ORACLE):
            for partition, manifest in self._stored(dataset):
                if (
                    manifest.detail.get("kind") == "simulator"
                    and partition["month"] not in self._staged[dataset]
                ):
                    self._lake.delete(dataset, partition)

    def _read_staged(self, dataset: str, month: str) -> pa.Table:
        name = f"{_STAGING}{dataset.split('/')[1]}"
        table = self._lake.read(name, {"instrument": self._instrument, "month": month})
        return table.replace_schema_metadata(None)

    def _stored(self, dataset: str) -> list[tuple[Partition, Manifest]]:
        found = []
        for partition in self._lake.partitions(dataset, instrument=self._instrument):
            manifest = self._lake.manifest(dataset, partition)
            if manifest is not None:
                found.append((partition, manifest))
        return found
