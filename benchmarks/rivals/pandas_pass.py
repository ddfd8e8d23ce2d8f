"""The catalogue's columns by vectorised pandas: read, compute, write one Parquet file.

    python -m benchmarks.rivals.pandas_pass SETTINGS OUT

SETTINGS is a settings file as JSON; its instrument's bars are read from the lake. The last line is JSON:
columns, seconds, and the seconds of each part. The imports are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd
import polars as pl

from benchmarks.rivals import pandas_bars, pandas_prices
from marketray.features.catalog import build_catalog
from marketray.features.stage import BARS, available_columns
from marketray.lake import Lake
from marketray.sessions import trading_sessions
from marketray.settings import MarketSettings, Settings


def with_sessions(bars: pd.DataFrame, market: MarketSettings, interval_minutes: int = 1) -> pd.DataFrame:
    """The bars with decision_at, and with session, open_at and close_at, missing outside sessions."""
    times = pl.Series(bars["time"])
    sessions = trading_sessions(market.calendar, times[0].date(), times[-1].date(), market.breaks)
    place = sessions.locate(times)
    spans = {name: pd.DatetimeIndex(sessions.frame[name].to_pandas()) for name in ("open_at", "close_at")}
    return bars.assign(
        decision_at=bars["time"] + pd.Timedelta(minutes=interval_minutes),
        session=pd.Series(place, index=bars.index).where(place >= 0).astype("Int32"),
        **{name: at.take(place, allow_fill=True, fill_value=pd.NaT) for name, at in spans.items()},
    )


def columns(bars: pd.DataFrame, *, lags: bool = True) -> dict[str, pd.Series]:
    """Every built-in feature of the standard catalogue, by name; those of the group `lags` on request."""
    more = pandas_prices.lags(bars) if lags else {}
    return {**pandas_prices.columns(bars), **pandas_bars.columns(bars), **more}


def main() -> None:
    """Measure and print."""
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    lake = Lake(settings.lake_uri)
    catalog = build_catalog(settings.features, available_columns(lake, settings.instrument))
    names, lags = catalog.names, bool(catalog.group("lags"))
    started = time.perf_counter()
    bars = pd.read_parquet(lake.path(BARS, {"instrument": settings.instrument}))
    bars = with_sessions(bars.drop(columns="month"), settings.market)
    read = time.perf_counter()
    found = columns(bars, lags=lags)
    table = pd.DataFrame(
        {"time": bars["time"], "decision_at": bars["decision_at"]} | {n: found[n] for n in names}
    )
    computed = time.perf_counter()
    table.to_parquet(sys.argv[2], compression="zstd", index=False, use_dictionary=["time", "decision_at"])
    written = time.perf_counter()
    parts = {"read": read - started, "compute": computed - read, "write": written - computed}
    print(json.dumps({"columns": len(names), "seconds": written - started, **parts}))


if __name__ == "__main__":
    main()
