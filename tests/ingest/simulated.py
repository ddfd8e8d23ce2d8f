"""Simulated data collected into frames, and the 30-minute label computed anew for the tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from marketray.ingest.sources.simulator import simulate
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import MarketSettings, SimulatorSource

CMES = MarketSettings()
XNYS = MarketSettings(calendar="XNYS", breaks=())
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Simulated:
    months: tuple[str, ...]
    bars: pl.DataFrame
    articles: pl.DataFrame
    oracle: pl.DataFrame
    sessions: Sessions

    @property
    def time_us(self) -> np.ndarray:
        return self.bars["time"].to_physical().to_numpy()

    @property
    def session(self) -> np.ndarray:
        return self.sessions.locate(self.bars["time"])

    def labels(self, tolerance: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Rows with a label, and their simple return to the last close in (t, t + 30 min]."""
        time, session, close = self.time_us, self.session, self.bars["close"].to_numpy()
        end = np.searchsorted(time, time + 30 * MINUTE_US, side="right") - 1
        near = time[end] >= time + (30 - tolerance) * MINUTE_US
        keep = np.flatnonzero(near & (session[end] == session))
        return keep, close[end[keep]] / close[keep] - 1


@lru_cache(maxsize=4)
def collect(source: SimulatorSource, market: MarketSettings, instrument: str = "SIM") -> Simulated:
    chunks = list(simulate(source, market, instrument))
    bars, articles, oracle = (
        pl.concat([pl.from_arrow(getattr(c, name)) for c in chunks])
        for name in ("bars", "articles", "oracle")
    )
    first, last = bars["time"][0].date(), bars["time"][-1].date()
    sessions = trading_sessions(market.calendar, first, last, market.breaks)
    return Simulated(tuple(c.month for c in chunks), bars, articles, oracle, sessions)


def slope(forecast: np.ndarray, label: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Regression through the origin of label on forecast: slope and standard error by cluster."""
    power = float(forecast @ forecast)
    estimate = float(forecast @ label) / power
    scores = np.bincount(cluster, weights=forecast * (label - estimate * forecast))
    return estimate, float(np.sqrt(scores @ scores)) / power
