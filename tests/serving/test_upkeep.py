"""The store forgets what the lake has had for long, events that nobody can be behind, and old answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from marketray.errors import SettingsError
from marketray.lake import Lake
from marketray.serving import control, upkeep
from marketray.serving.rollouts.rollout import Plan, cancel, start
from marketray.serving.store import Store, open_store
from marketray.serving.upkeep import prune, prune_record
from marketray.settings import Settings, load_settings
from marketray.settings_serving import RolloutSettings
from tests.serving.market import INSTRUMENT, simulated_bars, store_bars
from tests.serving.store.programs import split
from tests.serving.store.rows import row

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


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


def kept_for(days: int, home: Path) -> tuple[Settings, Store]:
    """A store with answers asked 1, 9, 11, 39 and 41 days ago, of which the label is known, or awaited."""
    serving = {"record_days": days}
    settings = load_settings(None, {"home": str(home), "instrument": INSTRUMENT, "serving": serving})
    store = open_store(settings.store_uri)
    for age in (1, 9, 11, 39, 41):
        at = NOW - age * DAY
        store.predictions.record([row(f"{age} awaits", at=at, decision_at=at)])
        store.predictions.record([row(age, at=at, status=503, predicted_return=None, probability_up=None)])
    return settings, store


def left(store: Store) -> set[str]:
    return {p.request_id for p in store.predictions.history()[0]}


def test_answers_are_kept_for_the_days_of_the_settings_and_longer_while_their_label_is_awaited(
    home: Path,
) -> None:
    settings, store = kept_for(10, home)
    assert prune_record(store, settings, NOW) == 4
    assert left(store) == {"1", "9", "1 awaits", "9 awaits", "11 awaits", "39 awaits"}
    assert prune_record(store, settings, NOW) == 0


def test_what_a_running_rollout_stands_on_is_kept_until_it_ends(home: Path) -> None:
    settings, store = kept_for(10, home)
    plan, began = Plan("green", 3, RolloutSettings()), NOW - 40 * DAY
    stored = store.rollouts.start(start(plan, split(0), began), who="ann")
    assert prune_record(store, settings, NOW) == 1
    assert left(store) & {"11", "39", "41", "41 awaits"} == {"11", "39", "41 awaits"}
    store.rollouts.save(stored, cancel(stored.rollout, NOW, "enough"), NOW)
    assert prune_record(store, settings, NOW) == 3
    assert left(store) & {"11", "39", "41", "41 awaits"} == set()


def test_no_days_mean_for_ever_and_negative_ones_nothing(home: Path) -> None:
    settings, store = kept_for(0, home)
    assert prune_record(store, settings, NOW) == 0
    assert len(left(store)) == 10
    with pytest.raises(SettingsError, match=r"serving\.record_days.*-1"):
        load_settings(None, {"serving": {"record_days": -1}})


def test_control_prunes_until_nothing_is_old_and_lets_others_write_between(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = kept_for(10, home)
    most: list[int] = []
    once = store.predictions.prune

    def two(before: datetime, *, awaiting_before: datetime) -> int:
        most.append(once(before, awaiting_before=awaiting_before, limit=2))
        return most[-1]

    monkeypatch.setattr(store.predictions, "prune", two)
    monkeypatch.setattr(control, "_BREATH_SECONDS", 0.0)
    held = SimpleNamespace(_store=store, _settings=settings)
    asyncio.run(control.Control._prune(held))  # type: ignore[arg-type]
    assert most == [2, 2, 2, 2, 2, 0]
    assert left(store) == set()
