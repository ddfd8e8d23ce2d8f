"""The simulator's news: when articles become known, what they say, and the impulse they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketray.ingest.articles import DEFAULT_LATENCY_SECONDS
from marketray.ingest.schemas import ARTICLE_SCHEMA, TIME_TYPE
from marketray.ingest.sources.simulator_effects import HORIZON_MINUTES
from marketray.ingest.sources.simulator_grid import MinuteGrid
from marketray.ingest.sources.simulator_text import write_articles

__all__ = ["ARTICLES_PER_MINUTE", "SENTIMENT_VARIANCE", "Arrivals", "arrive", "article_table", "news_impulse"]

ARTICLES_PER_MINUTE = {"open": 4 / 60, "closed": 1 / 60}
"""Poisson rate of articles while the market is open and while it is closed."""

_SENTIMENTS = np.array([-1, 0, 1], dtype=np.int8)
_PROBABILITIES = np.array([0.35, 0.30, 0.35])
SENTIMENT_VARIANCE = float(_PROBABILITIES @ _SENTIMENTS.astype(np.float64) ** 2)
"""Variance of an article's sentiment, whose mean is zero."""

_MEAN_DELAY_SECONDS = 45.0  # from publication to collection


@dataclass(frozen=True)
class Arrivals:
    """Articles by the time they become known, shape (n,) each.

    Attributes
    ----------
    available_us:
        Microseconds UTC, ascending, whole seconds.
    slot:
        Position on the minute grid of the minute [start, end) that holds it; -1 where the market is
        closed and will be for 30 minutes more: such an article moves nothing.
    sentiment:
        -1, 0 or 1.
    """

    available_us: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]
    sentiment: npt.NDArray[np.int8]


def arrive(rng: np.random.Generator, grid: MinuteGrid) -> Arrivals:
    """Draw the articles of the grid's sessions and of the closed hours before each."""
    rates = (ARTICLES_PER_MINUTE["open"], ARTICLES_PER_MINUTE["closed"])
    spans = ((grid.open_us, grid.close_us), (grid.closed_since_us, grid.open_us))
    available, slots = [], []
    for rate, (start_us, end_us) in zip(rates, spans, strict=True):
        seconds = (end_us - start_us) // 1_000_000
        session = np.repeat(np.arange(len(start_us)), rng.poisson(rate * seconds / 60))
        offset = np.floor(rng.random(len(session)) * seconds[session]).astype(np.int64)
        moment = start_us[session] + offset * 1_000_000
        minute = (moment - grid.open_us[session]) // 60_000_000
        slot = grid.first_slot[session] + HORIZON_MINUTES + minute
        available.append(moment)
        slots.append(np.where(minute >= -HORIZON_MINUTES, slot, -1))
    moments = np.concatenate(available)
    order = np.argsort(moments, kind="stable")
    sentiment = rng.choice(_SENTIMENTS, size=len(moments), p=_PROBABILITIES)
    return Arrivals(moments[order], np.concatenate(slots)[order], sentiment)


def news_impulse(arrivals: Arrivals, scale: npt.NDArray[np.float64], size: float) -> npt.NDArray[np.float64]:
    """Impulse a minute, ``size * sentiment * scale / 30`` in the minute an article becomes known."""
    felt = arrivals.slot >= 0
    slot = arrivals.slot[felt]
    weight = size / HORIZON_MINUTES * arrivals.sentiment[felt] * scale[slot]
    return np.bincount(slot, weights=weight, minlength=len(scale)).astype(np.float64)


def article_table(rng: np.random.Generator, arrivals: Arrivals, prefix: str) -> pa.Table:
    """Articles as `ARTICLE_SCHEMA`; ids start with `prefix`.

    Publication and collection lie before `available_at` such that
    ``available_at = max(published_at, collected_at) + 60 s`` holds exactly.
    """
    n = len(arrivals.available_us)
    collected = arrivals.available_us - int(DEFAULT_LATENCY_SECONDS) * 1_000_000
    published = collected - np.floor(rng.exponential(_MEAN_DELAY_SECONDS, n)).astype(np.int64) * 1_000_000
    titles, bodies = write_articles(rng, arrivals.sentiment)
    seconds = (arrivals.available_us // 1_000_000).tolist()
    ids = [f"{prefix}-{second}-{i}" for i, second in enumerate(seconds)]
    columns = [
        pa.array(ids, pa.string()),
        *(pa.array(us, pa.int64()).cast(TIME_TYPE) for us in (published, collected, arrivals.available_us)),
        pa.repeat(pa.scalar("second"), n),
        pa.repeat(pa.scalar("simulator"), n),
        pa.array([f"https://simulator.invalid/{i}" for i in ids], pa.string()),
        pa.array(titles, pa.string()),
        pa.array(bodies, pa.string()),
        pa.repeat(pa.scalar("en"), n),
    ]
    return pa.table(columns, schema=ARTICLE_SCHEMA)
