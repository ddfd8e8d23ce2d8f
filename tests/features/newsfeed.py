"""Seeded bars with scored articles, and their news features."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from marketray.bars import COLUMNS
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.features.kernel import compute
from marketray.sentiment.signals import NEWS_SCHEMA
from marketray.settings import FeatureSettings
from tests.features.market import make_bars, sessions_of

BARS = make_bars(3_000, seed=21)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(groups=("news",)), (*COLUMNS, NEWS))
INTERVAL = timedelta(minutes=1)


def articles(count: int, seed: int) -> pl.DataFrame:
    """Scored articles over the bars' span and two days before it, some of them at whole minutes."""
    rng = np.random.default_rng(seed)
    first, last = BARS["time"][0] - timedelta(days=2), BARS["time"][-1]
    seconds = np.sort(rng.integers(0, int((last - first).total_seconds()), count))
    seconds[::3] -= seconds[::3] % 60
    p = rng.dirichlet([0.6, 0.6, 0.6], count)
    times = pl.Series(
        [first + timedelta(seconds=int(s)) for s in np.sort(seconds)], dtype=NEWS_SCHEMA["available_at"]
    )
    return pl.DataFrame({"available_at": times, "positive": p[:, 0], "negative": p[:, 1], "neutral": p[:, 2]})


NEWSFEED = articles(400, seed=5)
ROWS = compute(CATALOG, BARS, SESSIONS, NEWSFEED)
