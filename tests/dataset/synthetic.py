"""Seeded bars and features in a small lake: the dataset is tested without the stages before it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marketray.features.catalog import build_catalog
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import Settings, load_settings

MINUTE = 60_000_000


def small_settings(home: Path, **overrides: Any) -> Settings:
    """XNYS hours, returns and lags only."""
    base = {
        "home": str(home),
        "instrument": "TEST",
        "market": {"calendar": "XNYS", "breaks": []},
        "features": {"groups": ["returns", "lags"]},
    }
    return load_settings(overrides={**base, **overrides})


def make_bars(
    sessions: Sessions, start: date, end: date, *, seed: int = 0, missing: float = 0.02
) -> pl.DataFrame:
    """One-minute bars with labels [start, end], a random walk, some minutes missing."""
    rng = np.random.default_rng(seed)
    frame = sessions.frame.filter(pl.col("session_date").is_between(start, end))
    spans = zip(frame["open_at"].to_physical(), frame["close_at"].to_physical(), strict=True)
    times = np.concatenate([np.arange(a, b, MINUTE) for a, b in spans])
    times = times[rng.random(len(times)) >= missing]
    close = 100 * np.exp(np.cumsum(rng.standard_normal(len(times)) * 5e-4))
    time = pl.Series("time", times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.DataFrame(
        {"time": time, "open": close, "high": close, "low": close, "close": close}
    ).with_columns(volume=pl.lit(None, dtype=pl.Float64), outlier=pl.lit(value=False))


def xnys_bars(start: date = date(2024, 10, 1), end: date = date(2024, 12, 31), seed: int = 0) -> pl.DataFrame:
    """XNYS minutes; the default span holds the half days 2024-11-29 and 2024-12-24."""
    return make_bars(trading_sessions("XNYS", start, end), start, end, seed=seed)


def write_inputs(settings: Settings, bars: pl.DataFrame, *, seed: int = 1) -> None:
    """Store bars and random features by month; a feature depends on its row alone, not on the span."""
    lake = Lake(settings.lake_uri)
    names = build_catalog(settings.features, ["time", "open", "high", "low", "close"]).names
    months = bars["time"].dt.strftime("%Y-%m")
    for month in months.unique().sort():
        part = bars.filter(months == month)
        minute = part["time"].to_physical().to_numpy() // MINUTE
        rng = np.random.default_rng(seed)
        frequencies = rng.uniform(0.1, 3.0, len(names))
        features = pl.DataFrame(
            {
                "time": part["time"],
                "decision_at": part["time"].dt.offset_by("1m"),
                **{n: np.sin(minute * f) * 1e-3 for n, f in zip(names, frequencies, strict=True)},
            }
        )
        for dataset, frame in (("bronze/bars", part), ("silver/features", features)):
            table = frame.to_arrow()
            manifest = Manifest("test", table_hash(table), table.num_rows, table.num_rows)
            lake.write(dataset, {"instrument": settings.instrument, "month": month}, table, manifest)
