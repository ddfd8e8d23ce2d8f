"""Rows that were refused: their original text, the reason, and where they came from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from marketray.bars import COLUMNS
from marketray.hashing import digest, table_hash
from marketray.ingest.parsing import original
from marketray.ingest.schemas import QUARANTINE_BAR_SCHEMA
from marketray.lake import Lake, Manifest

__all__ = ["DATASET", "SCHEMA", "UNDATED", "Quarantine"]

DATASET = "quarantine/bars"

SCHEMA = QUARANTINE_BAR_SCHEMA.append(pa.field("text", pa.string()))
"""`QUARANTINE_BAR_SCHEMA` and `text`: the whole line of a row that could not be split into fields."""

UNDATED = "undated"
"""Month of rows whose time cannot be read."""

_STAGING = "staging/quarantine"
_SPILL_ROWS = 100_000
_EXAMPLES = 3


class Quarantine:
    """Collects refused rows on disk aside and puts them into the lake when the whole source has passed.

    Parameters
    ----------
    dataset, schema:
        Where the rows go, and their columns.
    origin:
        The column that names the file of a row.

    Attributes
    ----------
    reasons:
        Rows by reason.
    months:
        Rows by month of their time (UTC), `UNDATED` where that cannot be read.
    examples:
        The first three rows of each reason, for the report.
    """

    def __init__(
        self,
        lake: Lake,
        instrument: str,
        *,
        dataset: str = DATASET,
        schema: pa.Schema = SCHEMA,
        origin: str = "source",
    ) -> None:
        self._lake, self._instrument = lake, instrument
        self._dataset, self._schema, self._origin = dataset, schema, origin
        self._waiting: list[tuple[str, pa.Table]] = []
        self._rows, self._parts = 0, 0
        self._parts_of: dict[str, list[str]] = {}
        self.reasons: Counter[str] = Counter()
        self.months: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    @property
    def rows(self) -> int:
        """How many rows were refused so far."""
        return sum(self.reasons.values())

    def add(self, frame: pl.DataFrame, source: str) -> None:
        """Take refused bars: parsed ones, or broken lines with `line`, `reason` and `text`."""
        if not len(frame):
            return
        texts = {name: original(frame, name) for name in COLUMNS}
        whole = (
            frame["text"]
            if "text" in frame.columns
            else pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
        )
        origin = (
            frame["source"]
            if "source" in frame.columns
            else pl.Series([source]).new_from_index(0, len(frame))
        )
        columns = {**texts, "reason": frame["reason"], "source": origin, "line": frame["line"], "text": whole}
        months = (
            frame["time"].dt.strftime("%Y-%m").fill_null(UNDATED)
            if "time" in frame.columns
            else (pl.Series([UNDATED]).new_from_index(0, len(frame)))
        )
        self.take(pl.DataFrame(columns).with_columns(month=months))

    def take(self, refused: pl.DataFrame) -> None:
        """Take refused rows with the columns of the schema and `month`."""
        for (month,), part in sorted(refused.partition_by("month", as_dict=True, include_key=False).items()):
            self._waiting.append((str(month), part.to_arrow().select(self._schema.names).cast(self._schema)))
            self.months[str(month)] += len(part)
        self._note(refused)
        self._rows += len(refused)
        if self._rows >= _SPILL_ROWS:
            self._spill()

    def publish(self, sources: list[str], kind: str) -> tuple[int, int, list[str]]:
        """Put the rows into the dataset in place of those that the same files had there.

        Returns
        -------
        tuple
            Partitions written, partitions that were right already, and the months that hold rows.
        """
        self._spill()
        stored = {p["month"] for p in self._lake.partitions(self._dataset, instrument=self._instrument)}
        written, skipped, months = 0, 0, []
        for month in sorted(stored | set(self._parts_of)):
            partition = {"instrument": self._instrument, "month": month}
            table = self._month(month, stored=month in stored, sources=sources)
            if not table.num_rows:
                self._lake.delete(self._dataset, partition)
                continue
            months.append(month)
            content = table_hash(table)
            key = digest(self._dataset, content)
            if self._lake.is_current(self._dataset, partition, key):
                skipped += 1
                continue
            reasons = dict(sorted(Counter(table["reason"].to_pylist()).items()))
            detail = {"kind": kind, "reasons": reasons}
            manifest = Manifest(key, content, table.num_rows, table.num_rows, detail=detail)
            self._lake.write(self._dataset, partition, table, manifest)
            written += 1
        return written, skipped, months

    def _month(self, month: str, *, stored: bool, sources: list[str]) -> pa.Table:
        tables = [
            self._lake.read(_STAGING, {"instrument": self._instrument, "month": month, "part": part})
            for part in self._parts_of.get(month, [])
        ]
        if stored:
            old = self._lake.read(self._dataset, {"instrument": self._instrument, "month": month})
            others = pc.invert(pc.is_in(old[self._origin], pa.array(sources, pa.string())))
            tables.insert(0, old.filter(others))
        tables = [t.replace_schema_metadata(None) for t in tables]
        both = pa.concat_tables(tables, promote_options="default")  # old months may lack newer columns
        present = [name for name in self._schema.names if name in both.column_names]
        return both.select(present).combine_chunks()

    def _spill(self) -> None:
        by_month: dict[str, list[pa.Table]] = {}
        for month, table in self._waiting:
            by_month.setdefault(month, []).append(table)
        for month, tables in by_month.items():
            part = f"{self._parts:06d}"
            table = pa.concat_tables(tables)
            partition = {"instrument": self._instrument, "month": month, "part": part}
            manifest = Manifest("", "", table.num_rows, table.num_rows)
            self._lake.write(_STAGING, partition, table, manifest)
            self._parts_of.setdefault(month, []).append(part)
        self._parts += 1
        self._waiting, self._rows = [], 0

    def _note(self, refused: pl.DataFrame) -> None:
        for (reason,), part in refused.partition_by("reason", as_dict=True, maintain_order=True).items():
            self.reasons[str(reason)] += len(part)
            shown = self.examples.setdefault(str(reason), [])
            for row in part.head(_EXAMPLES - len(shown)).iter_rows(named=True):
                shown.append({k: v for k, v in row.items() if v is not None and k not in ("reason", "month")})
