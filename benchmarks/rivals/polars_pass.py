"""The same kernel in one Polars process with all its threads: read, compute, write, a month at a time.

    python -m benchmarks.rivals.polars_pass SETTINGS OUT

SETTINGS is a settings file as JSON; its instrument's bars are read from the lake, and OUT is a folder for
one Parquet file a month. The last line is JSON: columns, seconds. The imports are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars as pl

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.stage import BARS, available_columns
from marketray.lake import Lake
from marketray.sessions import month_sessions
from marketray.settings import Settings


def main() -> None:
    """Measure and print."""
    settings, out = Settings.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    lake = Lake(settings.lake_uri)
    catalog = build_catalog(settings.features, available_columns(lake, settings.instrument))
    started = time.perf_counter()
    bars = None
    for partition in lake.partitions(BARS, instrument=settings.instrument):
        month = pl.read_parquet(f"{lake.path(BARS, partition)}/part.parquet", columns=list(catalog.columns))
        before = None if bars is None else bars.tail(catalog.lookback - 1)
        bars = month if before is None else pl.concat([before, month])
        sessions = month_sessions(settings.market, bars["time"][0].date(), bars["time"][-1].date())
        rows = compute(catalog, bars, sessions).tail(month.height)
        rows.write_parquet(out / f"{partition['month']}.parquet", compression="zstd")
    print(json.dumps({"columns": len(catalog.names), "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
