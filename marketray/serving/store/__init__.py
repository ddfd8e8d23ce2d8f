"""What the service must not forget, in one database that all its processes share.

No process holds anything that matters: each may be killed at any time, and the next one reads the store.
"""

from __future__ import annotations

from dataclasses import dataclass

from marketray.serving.store.database import Database
from marketray.serving.store.events import Events
from marketray.serving.store.live_bars import LiveBars
from marketray.serving.store.predictions import Predictions
from marketray.serving.store.rollouts import Rollouts
from marketray.serving.store.scores import Scores
from marketray.serving.store.traffic_log import TrafficLog

__all__ = ["Store", "open_store"]


@dataclass(frozen=True)
class Store:
    """The parts of the store. All methods block; call them from a thread where an event loop runs."""

    database: Database
    traffic: TrafficLog
    bars: LiveBars
    events: Events
    predictions: Predictions
    scores: Scores
    rollouts: Rollouts


def open_store(uri: str) -> Store:
    """Open the store at `uri` (see `marketray.settings.Settings.store_uri`), and make it where there is none.

    Raises
    ------
    StoreError
        The address cannot be used, the database cannot be reached, or it holds tables of another version.
    """
    database = Database(uri)
    database.create()
    return Store(
        database,
        TrafficLog(database),
        LiveBars(database),
        Events(database),
        Predictions(database),
        Scores(database),
        Rollouts(database),
    )
