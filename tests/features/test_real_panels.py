"""Real hourly and daily bars of many symbols: every bar becomes a row, nulls are the warm-up only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.features.stage import run_features
from marketray.ingest.stage import run_ingest
from marketray.lake import Lake
from marketray.settings import Settings, load_settings

CONFIG = Path(__file__).parents[2] / "configs" / "us-stocks-1h.yaml"
HOURLY = ("AAPL", "NFLX", "SPY", "XLK")
DAILY = ("SPY", "AVGO")


def data_file(spx_path: Path, name: str) -> Path:
    path = spx_path.parent / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def counts(path: Path, names: Sequence[str]) -> dict[str, int]:
    rows = pl.read_parquet(path, columns=["symbol"])["symbol"].value_counts()
    return {symbol: n for symbol, n in rows.sort("symbol").iter_rows() if symbol in names}


def features_of(settings: Settings, symbol: str) -> pl.DataFrame:
    found = Lake(settings.lake_uri).scan("silver/features", instrument=symbol)
    return pl.concat(pl.DataFrame(pl.from_arrow(table)) for _, table in found)


@pytest.mark.usefixtures("ray_local")
def test_hours_of_stocks(home: Path, spx_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_file(spx_path, "us_stocks_1h.parquet")
    monkeypatch.setenv("MARKETRAY_DATA", str(path.parent))
    assert counts(path, load_settings(CONFIG).panel).keys() == set(pl.read_parquet(path)["symbol"])
    groups = ["returns", "volatility", "volume", "session"]
    settings = load_settings(CONFIG, {"instruments": HOURLY, "features": {"groups": groups}})
    bars = counts(path, HOURLY)
    ingested = run_ingest(settings)
    assert {n: r.rows_out for n, r in ingested.instruments.items()} == bars
    assert (ingested.rows_in, ingested.rows_quarantined) == (sum(bars.values()), 0)
    assert {(r.rows_in, r.has_volume) for r in ingested.instruments.values()} == {(67_071, True)}
    computed = run_features(settings)
    assert {n: r.rows for n, r in computed.instruments.items()} == bars
    assert {r.dropped for r in computed.instruments.values()} == {()}
    for symbol in ("SPY", "NFLX"):
        rows = features_of(settings, symbol)
        assert len(rows) == bars[symbol]
        warm = rows.slice(computed.lookback - 1)
        shares = {n: warm[n].null_count() / len(warm) for n in warm.columns}
        assert {n for n, share in shares.items() if share > 0.02} == set()
        session = rows.select("minutes_since_open", "minutes_to_close", "return_since_open")
        assert session.null_count().row(0) == (0, 0, 23)  # a day of hours, less one
        assert set(rows["minutes_since_open"]) == {60.0 * h for h in range(1, 8)}


@pytest.mark.usefixtures("ray_local")
def test_days_of_funds_and_of_a_later_listing(home: Path, spx_path: Path) -> None:
    whole = pl.read_parquet(data_file(spx_path, "us_daily_2005_2024.parquet"))
    path = home / "daily.parquet"
    start = pl.when(pl.col("symbol") == "SPY").then(datetime(2020, 1, 1)).otherwise(datetime(2021, 6, 9))
    whole.filter(pl.col("date") >= start).write_parquet(path)
    settings = load_settings(
        overrides={
            "home": str(home),
            "instrument": "SPY",
            "instruments": list(DAILY),
            "bar_interval_minutes": 1440,
            "source": {
                "kind": "files",
                "paths": [str(path)],
                "instrument_column": "symbol",
                "timezone": "America/New_York",
            },
            "market": {"calendar": "XNYS", "breaks": []},
            "quality": {"min_rows": 500, "min_coverage": 0.99},
            "features": {"groups": ["returns", "session"]},
        }
    )
    bars = counts(path, DAILY)
    ingested = run_ingest(settings)
    assert {n: r.rows_out for n, r in ingested.instruments.items()} == bars
    report = Lake(settings.lake_uri).read_json("manifests/ingest/SPY.report.json")
    coverage = report["coverage"]
    assert coverage["expected"] == coverage["observed"] == bars["SPY"]
    assert (coverage["outside_sessions"], coverage["overlapping"]) == (0, 0)
    computed = run_features(settings)
    assert {n: r.rows for n, r in computed.instruments.items()} == bars
    rows = features_of(settings, "AVGO")
    warm = rows.slice(computed.lookback - 1)
    assert [n for n in warm.columns if warm[n].null_count()] == []
    assert rows["decision_at"].dt.convert_time_zone("America/New_York").dt.hour().is_in([0, 1, 23]).all()
    assert set(rows["minutes_since_previous_bar"].drop_nulls()) >= {1440.0, 3 * 1440.0}
