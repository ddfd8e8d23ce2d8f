"""What the audits run on: a run's own bars and news, or simulated ones where the lake has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from marketray.bars import COLUMNS, QUOTES, SIZES
from marketray.errors import DataError
from marketray.features.catalog import Catalog, build_catalog
from marketray.features.definition import NEWS
from marketray.features.stage import BARS, available_columns
from marketray.ingest.sources.simulator import simulate
from marketray.lake import Lake
from marketray.sentiment.signals import MAX_AGE_MINUTES, NEWS_SCHEMA
from marketray.sentiment.store import months_between, news_contents, read_news
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import Settings, SimulatorSource

__all__ = ["AuditBars", "audit_bars"]

_log = logging.getLogger(__name__)

_LEAST = 6_000
_SIMULATED_LEAST = 10_000


@dataclass(frozen=True)
class AuditBars:
    """The bars of an audit, where they come from, the catalog that they can carry, and its news."""

    frame: pl.DataFrame
    origin: str
    catalog: Catalog
    sessions: Sessions
    news: pl.DataFrame | None


def audit_bars(settings: Settings, size: int | None = None) -> AuditBars:
    """The instrument's latest bars in the lake and their news; simulated ones where it has no bars.

    Raises
    ------
    LakeError
        The lake cannot be read.
    DataError
        There are fewer than 100 bars.
    """
    lake = Lake(settings.lake_uri)
    interval = settings.bar_interval_minutes
    available = available_columns(lake, settings.instrument, news=settings.sentiment.enabled)
    origin = f"{settings.instrument} in {settings.lake_uri}"
    stored = any(name in COLUMNS for name in available)
    catalog = build_catalog(settings.features, available if stored else (*COLUMNS, NEWS), interval)
    wanted = size or max(_LEAST, 3 * catalog.lookback)
    if stored:
        frame = _latest(lake, settings.instrument, wanted, catalog.columns)
        news = _stored_news(lake, settings.instrument, frame) if catalog.news_columns else None
    else:
        origin = f"simulated bars, since the lake has none of {settings.instrument}"
        _log.info("audit: %s", origin)
        frame, news = _simulated(settings, wanted)
    if frame.height < 100:
        msg = f"audit: got {frame.height} bars of {origin}; required: at least 100"
        raise DataError(msg, hint="ingest more bars")
    first, last = frame["time"][0].date(), frame["time"][-1].date()
    sessions = trading_sessions(settings.market.calendar, first, last, settings.market.breaks)
    return AuditBars(frame, origin, catalog, sessions, news)


def _stored_news(lake: Lake, instrument: str, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.is_empty():
        return pl.DataFrame(schema=NEWS_SCHEMA)
    months = months_between(news_contents(lake, instrument), frame["time"][0], frame["time"][-1])
    return read_news(lake, instrument, months)


def _latest(lake: Lake, instrument: str, wanted: int, columns: Sequence[str]) -> pl.DataFrame:
    parts: list[pl.DataFrame] = []
    for partition in reversed(lake.partitions(BARS, instrument=instrument)):
        part = pl.DataFrame(pl.from_arrow(lake.read(BARS, partition)))
        absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in part.columns]
        parts.append(part.with_columns(absent).select(columns))
        if sum(map(len, parts)) >= wanted:
            break
    return pl.concat(reversed(parts)).tail(wanted)


def _simulated(settings: Settings, wanted: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Simulated bars of the settings' interval, with made quotes and sizes, and news with made scores."""
    base = settings.source if isinstance(settings.source, SimulatorSource) else SimulatorSource()
    step = settings.bar_interval_minutes
    minutes = max(_SIMULATED_LEAST, wanted * step * 2)
    source = base.model_copy(update={"bars": minutes})
    chunks = list(simulate(source, settings.market, settings.instrument))
    frame = pl.concat(pl.DataFrame(pl.from_arrow(chunk.bars)) for chunk in chunks)
    known = pl.concat(pl.Series("available_at", chunk.articles["available_at"]) for chunk in chunks).sort()
    scores = np.random.default_rng(source.seed).dirichlet([0.7, 0.7, 0.7], len(known))
    news = pl.DataFrame([known, *map(pl.Series, ("positive", "negative", "neutral"), scores.T)])
    half = pl.col("close") * 1e-5 * (1 + pl.col("volume") % 7)
    sizes = {name: 1 + pl.col("volume") % n for name, n in zip(SIZES, (11, 13), strict=True)}
    frame = frame.with_columns(bid=pl.col("close") - half, ask=pl.col("close") + half, **sizes)
    if step > 1:
        opens, closes = pl.col("open").first(), pl.col("close", *QUOTES, *SIZES).last()
        ranges = (pl.col("high").max(), pl.col("low").min(), pl.col("volume").sum())
        frame = frame.group_by_dynamic("time", every=f"{step}m").agg(opens, *ranges, closes)
    frame = frame.select(COLUMNS).tail(wanted)
    oldest = frame["time"][0] - timedelta(minutes=MAX_AGE_MINUTES)
    return frame, news.filter(pl.col("available_at").is_between(oldest, frame["time"][-1]))
