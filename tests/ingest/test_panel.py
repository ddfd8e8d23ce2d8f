"""Several instruments in one file: each is what it would be alone, and a bad one is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marketray.errors import DataError, QualityError, SettingsError
from marketray.features.catalog import build_catalog
from marketray.features.stage import run_features
from marketray.ingest.stage import run_ingest
from marketray.lake import Lake
from marketray.settings import Settings, load_settings
from tests.ingest.made_bars import ALWAYS, LENIENT, as_text, bronze, minutes, tree

pytestmark = pytest.mark.usefixtures("ray_local")

START = datetime(2024, 1, 31, 12, tzinfo=UTC)  # the bars cross a month's edge


def panel_file(home: Path, **changes: pl.Expr) -> Path:
    """AA with volume and BB without, row by row in turns, and CC that no test names; BB can be changed."""
    bars = {name: minutes(1_000, START, seed) for seed, name in enumerate(("AA", "BB", "CC"))}
    bars["BB"] = bars["BB"].with_columns(volume=pl.lit(0.0)).with_columns(**changes)
    named = [as_text(frame).with_columns(symbol=pl.lit(name)) for name, frame in bars.items()]
    path = home / "panel.csv"
    pl.concat(named).sort("time", "symbol").write_csv(path)
    return path


def panel_settings(home: Path, path: Path, *names: str, **changes: Any) -> Settings:
    overrides: dict[str, Any] = {
        "home": str(home),
        "instrument": names[0],
        "instruments": list(names),
        "market": ALWAYS,
        "source": {"kind": "files", "paths": [str(path)], "instrument_column": "symbol"},
        "quality": {**LENIENT, **changes.pop("quality", {})},
        "features": {"groups": ["returns", "volume"]},
        **changes,
    }
    return load_settings(overrides=overrides)


def run(settings: Settings) -> dict[str, bytes]:
    """Ingest and features; every file that they left in the lake."""
    run_ingest(settings)
    run_features(settings)
    return tree(settings.home_path / "lake")


def test_an_instrument_of_a_panel_is_what_it_is_alone(home: Path) -> None:
    path = panel_file(home)
    both = run(panel_settings(home / "both", path, "AA", "BB"))
    alone: dict[str, bytes] = {}
    for name in ("AA", "BB"):
        source = {"kind": "files", "paths": [str(path)], "select": {"symbol": name}}
        single = panel_settings(home / name, path, name, instruments=[], source=source)
        alone |= run(single)
    assert both == alone
    assert "silver/features/instrument=BB/month=2024-02/part.parquet" in both


def test_totals_are_sums_and_each_instrument_has_its_own_columns(home: Path) -> None:
    settings = panel_settings(home, panel_file(home), "AA", "BB")
    ingested = run_ingest(settings)
    own = ingested.instruments
    assert [(r.rows_in, r.rows_dropped, r.rows_out) for r in own.values()] == [(3_000, 2_000, 1_000)] * 2
    assert [r.has_volume for r in own.values()] == [True, False]
    assert (ingested.rows_in, ingested.rows_out, ingested.rows_quarantined) == (2_000, 2_000, 0)
    assert (ingested.instrument, ingested.months) == ("AA", ["2024-01", "2024-02"])
    assert ingested.data_end == START + timedelta(minutes=1_000)
    assert bronze(home, instrument="BB")["volume"].is_null().all()
    computed = run_features(settings)
    aa, bb = (computed.instruments[name] for name in ("AA", "BB"))
    assert (computed.written, computed.rows, aa.rows, bb.rows) == (4, 2_000, 1_000, 1_000)
    assert aa.dropped == computed.dropped == ()
    catalog = build_catalog(settings.features, ("time", "open", "high", "low", "close", "volume"))
    assert bb.dropped == tuple(f.name for f in catalog.features if f.inputs == ("volume",))
    assert aa.features - bb.features == len(bb.dropped) > 0
    assert (computed.features, computed.catalog_hash) == (aa.features, aa.catalog_hash)
    assert aa.catalog_hash != bb.catalog_hash
    lake = Lake(settings.lake_uri)
    for name, result in computed.instruments.items():
        manifest = lake.read_json(f"manifests/features/{name}.json")
        assert manifest["rows_in"] == manifest["rows_out"] == 1_000
        assert manifest["detail"]["dropped_features"] == list(result.dropped)
    again = run_ingest(settings), run_features(settings)
    assert [(r.written, r.skipped) for r in again] == [(0, 4), (0, 4)]


def test_a_bad_instrument_is_named_with_its_rows_and_the_others_are_stored(home: Path) -> None:
    wrong = {"high": pl.when(pl.int_range(pl.len()) < 200).then(pl.col("low") / 2).otherwise("high")}
    settings = panel_settings(
        home, panel_file(home, **wrong), "AA", "BB", quality={"max_quarantined_share": 0.05}
    )
    with pytest.raises(
        QualityError, match="1 of 2 instruments failed: BB\nBB: the bars failed 1 of"
    ) as raised:
        run_ingest(settings)
    # the file's lines are: header, AA, BB, CC, AA, BB, …
    assert (
        "200 ohlc_inconsistent (panel.csv line 3, panel.csv line 6, panel.csv line 9)" in raised.value.message
    )
    assert len(bronze(home, instrument="AA")) == 1_000
    assert len(bronze(home, instrument="BB")) == 0
    report = json.loads((home / "lake/manifests/ingest/BB.report.json").read_text())
    assert (report["status"], report["rows_in"], report["rows_quarantined"]) == ("failed", 1_000, 200)


def test_every_failed_instrument_is_named(home: Path) -> None:
    settings = panel_settings(home, panel_file(home), "AA", "NONE", "NEITHER")
    with pytest.raises(QualityError, match="2 of 3 instruments failed: NONE, NEITHER") as raised:
        run_ingest(settings)
    assert raised.value.message.count("got 0 usable rows") == 2
    gone = panel_settings(home, home / "no.csv", "AA", "BB")
    with pytest.raises(DataError, match=r"2 of 2 instruments failed: AA, BB\nAA: source.paths: .*no.csv"):
        run_ingest(gone)


def test_candles_name_their_instrument(home: Path) -> None:
    path = home / "candles.jsonl"
    with path.open("w") as file:
        for i in range(20):
            stamp = (START + timedelta(minutes=i)).isoformat()
            for name in ("AA", "BB"):
                mid = dict.fromkeys("ohlc", str(100 + i))
                file.write(json.dumps({"instrument": name, "time": stamp, "mid": mid, "volume": 1}) + "\n")
    source = {"kind": "files", "paths": [str(path)], "layout": "oanda", "instrument_column": "instrument"}
    result = run_ingest(panel_settings(home, path, "BB", "AA", source=source))
    assert [(n, r.rows_out, r.rows_quarantined) for n, r in result.instruments.items()] == [
        ("BB", 20, 0),
        ("AA", 20, 0),
    ]


def test_simulated_instruments_are_independent(home: Path) -> None:
    settings = load_settings(
        overrides={
            "home": str(home),
            "instrument": "AA",
            "instruments": ["AA", "BB"],
            "source": {"kind": "simulator", "bars": 10_000},
        }
    )
    result = run_ingest(settings)
    assert result.rows_out == 20_000
    closes = [bronze(home, instrument=name)["close"].to_numpy() for name in ("AA", "BB")]
    assert (closes[0] != closes[1]).mean() > 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instrument": "XX"}, r"instruments=\['AA', 'BB'\]; required: .*instrument='XX' among them"),
        ({"instruments": ["AA", "AA"]}, "required: different names"),
        (
            {"source": {"kind": "files", "paths": ["a.csv"]}},
            "would all be made of the same rows; required: source.ins",
        ),
        (
            {
                "source": {
                    "kind": "files",
                    "paths": ["a.csv"],
                    "instrument_column": "symbol",
                    "select": {"symbol": "AA"},
                }
            },
            "instrument_column='symbol' is in select too; required: one of the two",
        ),
    ],
)
def test_settings_that_cannot_be_meant(home: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        panel_settings(home, home / "a.csv", "AA", "BB", **changes)
