"""One live feature row: ``python -m benchmarks.online``; the last line is JSON.

Keys: bars, features, ms_per_bar_p50, ms_per_bar_p99. A bar's time covers its checks, the state and all
features; the state is restored first, so every bar is evaluated on the whole lookback.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from benchmarks.bars import minutes, walk
from marketray.features.catalog import build_catalog
from marketray.features.online import OnlineState
from marketray.features.tail import BAR_COLUMNS
from marketray.settings import Settings


def seeded_bars(count: int) -> pl.DataFrame:
    """`count` one-minute bars with volume and quotes, in the sessions of the default market."""
    start = datetime(2024, 2, 4, 23, tzinfo=UTC)
    times = minutes(Settings().market, start, start + timedelta(days=4 + count // 600))
    return walk(times.head(count), np.random.default_rng(7), 5_000.0)


def measure(count: int) -> dict[str, object]:
    """Append `count` bars one at a time, after a whole lookback and ten more that are not measured."""
    settings, warm_up = Settings(), 10
    catalog = build_catalog(settings.features, BAR_COLUMNS, settings.bar_interval_minutes)
    bars = seeded_bars(catalog.lookback + warm_up + count)
    state = OnlineState.from_bars(catalog, settings.market, bars.head(catalog.lookback))
    interval, spent = timedelta(minutes=settings.bar_interval_minutes), []
    for bar in bars.slice(catalog.lookback).iter_rows(named=True):
        started = time.perf_counter()
        state.append(bar, bar["time"] + interval)
        spent.append(time.perf_counter() - started)
    milliseconds = 1e3 * np.array(spent[warm_up:])
    return {
        "bars": count,
        "features": len(catalog.names),
        "ms_per_bar_p50": round(float(np.quantile(milliseconds, 0.5)), 3),
        "ms_per_bar_p99": round(float(np.quantile(milliseconds, 0.99)), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=1_000)
    print(json.dumps(measure(parser.parse_args().bars)))


if __name__ == "__main__":
    main()
