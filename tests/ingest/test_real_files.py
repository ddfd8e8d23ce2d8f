"""The real files: every bar arrives, volume is real or absent, contracts and symbols are selected."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.ingest.intake import ingest_source
from marketray.settings import load_settings
from tests.ingest.made_bars import bronze

COLUMNS = ["time", "open", "high", "low", "close", "volume"]


def sibling(spx_path: Path, name: str) -> Path:
    path = spx_path.parent / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def settings(home: Path, path: Path, **changes: object) -> dict[str, object]:
    source = {"kind": "files", "paths": [str(path)], **changes.pop("source", {})}  # type: ignore[dict-item]
    return {"home": str(home), "source": source, **changes}


def test_sp500_minutes_without_volume(home: Path, spx_path: Path) -> None:
    result = ingest_source(load_settings(overrides=settings(home, spx_path)))
    assert (result.rows_in, result.rows_out, result.rows_quarantined) == (618_735, 618_735, 0)
    assert (result.has_volume, result.written, len(result.months)) == (False, 24, 24)
    assert result.data_end == datetime(2019, 12, 31, 21, 14, tzinfo=UTC)
    found = bronze(home, instrument="SPX500_USD")
    source = pl.read_parquet(spx_path)
    assert found.select(COLUMNS[:5]).equals(source.select(COLUMNS[:5]))
    assert found["volume"].is_null().all()
    assert found["outlier"].mean() < 0.002  # fat tails are life; a robust rule of 5 sigma would flag 2.8 %


def test_futures_by_contract_with_volume(home: Path, spx_path: Path) -> None:
    path = sibling(spx_path, "es_nq_futures_1m.parquet")
    changes = {"source": {"select": {"contract": "ESZ18"}}, "instrument": "ES"}
    result = ingest_source(load_settings(overrides=settings(home, path, **changes)))
    source = pl.read_parquet(path)
    chosen = source.filter(pl.col("contract") == "ESZ18").select(COLUMNS)
    assert bronze(home, instrument="ES").select(COLUMNS).equals(chosen)
    assert (result.rows_in, result.rows_dropped) == (len(source), len(source) - len(chosen))
    assert (result.rows_out, result.has_volume) == (len(chosen), True)


def test_hourly_stocks_by_symbol(home: Path, spx_path: Path) -> None:
    path = sibling(spx_path, "us_stocks_1h.parquet")
    changes = {
        "source": {"select": {"symbol": "AAPL"}},
        "instrument": "AAPL",
        "bar_interval_minutes": 60,
        "labels": {"horizon_minutes": 60},
        "market": {"calendar": "XNYS", "breaks": []},
        "quality": {"min_rows": 1_000, "min_coverage": 0.9},
    }
    result = ingest_source(load_settings(overrides=settings(home, path, **changes)))
    chosen = pl.read_parquet(path).filter(pl.col("symbol") == "AAPL").select(COLUMNS)
    assert bronze(home, instrument="AAPL").select(COLUMNS).equals(chosen)
    assert (result.rows_out, result.rows_quarantined) == (len(chosen), 0)


PEAK = """
import resource, sys
from marketray.ingest.intake import ingest_source
from marketray.settings import load_settings
source = {"kind": "files", "paths": [sys.argv[1]]}
ingest_source(load_settings(overrides={"home": sys.argv[2], "source": source}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_ten_times_the_rows_need_no_more_memory(home: Path, spx_path: Path) -> None:
    source = pl.read_parquet(spx_path)
    peaks = []
    for times in (1, 10):
        path = home / f"bars{times}.csv"
        with path.open("wb") as file:
            for k in range(times):
                shift = pl.duration(weeks=105 * (times - 1 - k))
                part = source.with_columns((pl.col("time") - shift).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
                file.write(part.write_csv(include_header=k == 0).encode())
        command = [sys.executable, "-c", PEAK, str(path), str(home / f"home{times}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]
