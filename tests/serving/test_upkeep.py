"""The store forgets what the lake has had for long, and events that nobody can be behind."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from marketray.lake import Lake
from marketray.serving import upkeep
from marketray.serving.store import open_store
from marketray.serving.upkeep import prune
from marketray.settings import load_settings
from tests.serving.market import INSTRUMENT, simulated_bars, store_bars


def test_bars_that_the_lake_has_had_for_a_week_and_old_events(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "KEPT_EVENTS", 3)
    settings = load_settings(None, {"home": str(home), "instrument": INSTRUMENT})
    store = open_store(settings.store_uri)
    bars = simulated_bars(20_000)[0].drop("outlier")
    times = bars["time"]
    for name in (INSTRUMENT, "OTHER"):
        store.bars.append(name, bars.gather_every(100))
    for n in range(5):
        store.events.publish("forecast", {}, key=str(n))
    assert prune(store, settings) == {"bars": 0, "events": 2}  # there is no lake to have them
    assert [e.id for e in store.events.after(0)] == [3, 4, 5]
    store_bars(Lake(settings.lake_uri), bars.head(len(bars) - 50).with_columns(outlier=pl.lit(0.0)))
    week = times[len(bars) - 51] - timedelta(days=7)
    old = int((times.gather_every(100) < week).sum())
    assert old > 0
    assert prune(store, settings) == {"bars": old, "events": 0}
    assert store.bars.newest(INSTRUMENT, 1_000)["time"][0] >= week
    assert store.bars.count("OTHER") == len(times.gather_every(100))
