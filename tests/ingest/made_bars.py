"""Made bars for the tests of ingest: clean seeded minutes on a calendar that never closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marketray.ingest.intake import ingest_source
from marketray.ingest.record import IngestResult
from marketray.lake import Lake
from marketray.settings import Settings, load_settings

START = datetime(2024, 1, 30, tzinfo=UTC)
ALWAYS = {"calendar": "24/7", "breaks": []}
LENIENT = {"min_rows": 1, "max_quarantined_share": 1.0, "max_missing_share": 1.0, "min_coverage": 0.0}


def minutes(count: int, start: datetime = START, seed: int = 1) -> pl.DataFrame:
    """Bars without a flaw: time, open, high, low, close, volume."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, count)))
    opened = np.concatenate([[100.0], close[:-1]])
    times = [start + timedelta(minutes=i) for i in range(count)]
    frame = pl.DataFrame(
        {
            "time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "open": opened,
            "high": np.maximum(opened, close) * 1.00001,
            "low": np.minimum(opened, close) * 0.99999,
            "close": close,
            "volume": rng.integers(1, 100, count).astype(float),
        }
    )
    return frame.with_columns(pl.col("open", "high", "low", "close").round(6))


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The same bars as a text file would hold them, stamps in ISO 8601 with Z."""
    stamps = pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame.with_columns(stamps, pl.exclude("time").cast(pl.String))


def settings_for(home: Path, *paths: Path, **changes: Any) -> Settings:
    """Settings of a lenient ingest of `paths`; `source`, `quality` and other keys can be changed."""
    overrides: dict[str, Any] = {
        "home": str(home),
        "instrument": "TEST",
        "market": ALWAYS,
        "source": {"kind": "files", "paths": [str(p) for p in paths], **changes.pop("source", {})},
        "quality": {**LENIENT, **changes.pop("quality", {})},
        **changes,
    }
    return load_settings(overrides=overrides)


def ingest(home: Path, *paths: Path, **changes: Any) -> IngestResult:
    """Ingest `paths` into the lake of `home` in this process."""
    return ingest_source(settings_for(home, *paths, **changes))


def bronze(home: Path, dataset: str = "bronze/bars", instrument: str = "TEST") -> pl.DataFrame:
    """All rows of a dataset with their month."""
    lake = Lake(str(home / "lake"))
    frames = []
    for partition, table in lake.scan(dataset, instrument=instrument):
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frames.append(frame.with_columns(month=pl.lit(partition["month"])))
    return pl.concat(frames) if frames else pl.DataFrame()


def refused(home: Path) -> list[tuple[int, str]]:
    """Line and reason of every quarantined row, by line."""
    found = bronze(home, "quarantine/bars")
    return sorted(found.select("line", "reason").iter_rows()) if len(found) else []


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
