"""The embedded market simulator: seeded minute bars and news with a planted, known effect.

See docs/simulator.md for the model. Whatever is drawn depends only on the seed, the instrument, the
market, the effect's settings and the month, so that a longer run starts with the bars of a shorter one.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketray.errors import SettingsError
from marketray.ingest.schemas import ORACLE_SCHEMA, TIME_TYPE
from marketray.ingest.sources.simulator_effects import (
    HORIZON_MINUTES,
    Moments,
    PlantedSize,
    drift,
    plant,
    remaining_drift,
    session_moments,
)
from marketray.ingest.sources.simulator_grid import LAST_YEAR, MinuteGrid, month_grids
from marketray.ingest.sources.simulator_market import (
    BASE_RANGE,
    BODY_VARIANCE,
    MarketState,
    bars,
    draw_flow,
    volatility_profile,
)
from marketray.ingest.sources.simulator_news import (
    ARTICLES_PER_MINUTE,
    SENTIMENT_VARIANCE,
    arrive,
    article_table,
    news_impulse,
)
from marketray.settings import MarketSettings, SimulatorSource

__all__ = ["SimulatedChunk", "planted_size", "simulate"]

Float64Array = npt.NDArray[np.float64]

_MINUTE_US = 60_000_000
_STREAMS = ("flow", "prices", "arrivals", "articles")


@dataclass(frozen=True)
class SimulatedChunk:
    """One calendar month (UTC).

    Attributes
    ----------
    month:
        "YYYY-MM".
    bars:
        Bars that open in the month, by time; `BAR_SCHEMA` without sizes and flags.
    articles:
        Articles that become available in the month, by `available_at`; `ARTICLE_SCHEMA`.
    oracle:
        Best forecasts, one row for each bar at the bar's end; `ORACLE_SCHEMA`.
    """

    month: str
    bars: pa.Table
    articles: pa.Table
    oracle: pa.Table


def simulate(source: SimulatorSource, market: MarketSettings, instrument: str) -> Iterator[SimulatedChunk]:
    """Stream months of simulated one-minute bars, articles and oracle forecasts.

    Parameters
    ----------
    source:
        Number of bars, first session date, seed, effects.
    market:
        Calendar and daily breaks; there are no bars outside the sessions.
    instrument:
        Part of the seed: two instruments are independent.

    Returns
    -------
    Iterator of SimulatedChunk
        Consecutive months with exactly `source.bars` bars in total. Not more than two months are held.
        Articles that become available after the last bar's end are left out.

    Raises
    ------
    SettingsError
        At once: `source.start` is no date, the calendar does not reach it, no session is longer than
        30 minutes, or the effects cannot be that large. While streaming: the calendar ends too early.
    """
    start = _start_date(source)
    size = planted_size(source, market)
    return _cut(_by_month(_units(source, market, instrument, start, size)), source, start)


def planted_size(source: SimulatorSource, market: MarketSettings) -> PlantedSize:
    """Sizes of the effects that give `market_r2` and `news_r2` over the first year's sessions.

    Exact up to second-order terms of the return. Decisions less than 30 minutes before a session's end
    are left out, since their label is shorter or missing.
    """
    start = _start_date(source)
    year_us = 365 * 86_400 * 1_000_000
    kinds: Counter[tuple[int, bool]] = Counter()
    first: int | None = None
    for grid in month_grids(market, start):
        first = int(grid.open_us[0]) if first is None else first
        minutes = (grid.close_us - grid.open_us) // _MINUTE_US
        closed = (grid.open_us - grid.closed_since_us) // _MINUTE_US >= HORIZON_MINUTES
        kinds.update(zip(minutes.tolist(), closed.tolist(), strict=True))
        if grid.open_us[-1] >= first + year_us:
            break
    if all(minutes <= HORIZON_MINUTES for minutes, _ in kinds):
        msg = f"market.calendar: no session of {market.calendar} is longer than {HORIZON_MINUTES} minutes"
        raise SettingsError(msg, hint="choose another market.calendar or fewer market.breaks")
    _check_reach(source, start, sum(minutes * times for (minutes, _), times in kinds.items()))
    moments = Moments()
    for (length, after_close), times in sorted(kinds.items()):
        moments = moments.add(_moments(length, after_close, 1.0 - source.missing_share), times)
    market_r2 = source.market_r2 if source.effect in ("market", "all") else 0.0
    news_r2 = source.news_r2 if source.effect in ("news", "all") else 0.0
    return plant(moments, market_r2, news_r2)


def _moments(minutes: int, closed_before: bool, present: float) -> Moments:
    fraction = (np.arange(minutes) + 0.5) / minutes
    variance = (BASE_RANGE * volatility_profile(fraction)) ** 2
    article = SENTIMENT_VARIANCE * variance / HORIZON_MINUTES**2
    before_open = ARTICLES_PER_MINUTE["closed"] * float(article[0]) if closed_before else 0.0
    news = ARTICLES_PER_MINUTE["open"] * article
    return session_moments(BODY_VARIANCE * present * variance, news, before_open, present)


def _start_date(source: SimulatorSource) -> date:
    try:
        return date.fromisoformat(source.start)
    except ValueError as e:
        msg = f"source.start={source.start!r}; required: a date such as 2024-01-02"
        raise SettingsError(msg, hint="write the first session's date as YYYY-MM-DD") from e


def _check_reach(source: SimulatorSource, start: date, minutes_a_year: int) -> None:
    years = LAST_YEAR + 1 - start.year
    if source.bars > 1.02 * years * minutes_a_year * (1 - source.missing_share):
        raise _too_short(source, start)


def _too_short(source: SimulatorSource, start: date) -> SettingsError:
    msg = f"source.bars={source.bars}: the calendar has fewer minutes from {start} to the end of {LAST_YEAR}"
    return SettingsError(msg, hint="start earlier, or choose a calendar with more hours such as 24/7")


def _units(
    source: SimulatorSource, market: MarketSettings, instrument: str, start: date, size: PlantedSize
) -> Iterator[tuple[str, pa.Table, pa.Table, pa.Table]]:
    """The sessions that open in each month: month, bars, articles, oracle."""
    state = MarketState()
    for grid in month_grids(market, start):
        rng = _generators(source.seed, instrument, grid.month)
        flow, state = draw_flow(rng["flow"], grid, state, source.missing_share)
        arrivals = arrive(rng["arrivals"], grid)
        impulses = {"market": size.flow * flow.body, "news": news_impulse(arrivals, flow.scale, size.news)}
        total = drift(impulses["market"] + impulses["news"])
        table, state = bars(rng["prices"], grid, flow, total, state)
        oracle = _oracle(grid, flow.present, impulses, 1.0 - source.missing_share)
        prefix = f"sim-{instrument}-{source.seed}"
        yield grid.month, table, article_table(rng["articles"], arrivals, prefix), oracle


def _generators(seed: int, instrument: str, month: str) -> dict[str, np.random.Generator]:
    key = [seed & (2**64 - 1), zlib.crc32(instrument.encode()), int(month.replace("-", ""))]
    return {name: np.random.default_rng([*key, i]) for i, name in enumerate(_STREAMS)}


def _oracle(
    grid: MinuteGrid, keep: npt.NDArray[np.bool_], impulses: dict[str, Float64Array], present: float
) -> pa.Table:
    parts = {name: remaining_drift(i, grid.minutes_left, present)[keep] for name, i in impulses.items()}
    decision = pa.array(grid.time_us[keep] + _MINUTE_US, pa.int64()).cast(TIME_TYPE)
    columns = [decision, *map(pa.array, (parts["market"], parts["news"], parts["market"] + parts["news"]))]
    return pa.table(columns, schema=ORACLE_SCHEMA)


def _by_month(units: Iterator[tuple[str, pa.Table, pa.Table, pa.Table]]) -> Iterator[SimulatedChunk]:
    """Regroup by the month of the rows: a session can open in one month and end in the next.

    A month is complete when the sessions that open in the next one are there, since their articles can
    lie in the closed hours before them.
    """
    held: list[pa.Table] = []
    before = ""
    for month, *tables in units:
        if held:
            start = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
            joined = [pa.concat_tables(pair) for pair in zip(held, tables, strict=True)]
            # a row of the oracle belongs to its bar: count bars instead of comparing its own time
            rows = [_rows_before(joined[0]["time"], start), _rows_before(joined[1]["available_at"], start)]
            rows.append(rows[0])
            yield SimulatedChunk(before, *(t.slice(0, n) for t, n in zip(joined, rows, strict=True)))
            held = [t.slice(n) for t, n in zip(joined, rows, strict=True)]
        else:
            held = tables
        before = month


def _rows_before(times: pa.ChunkedArray, end: datetime) -> int:
    return int(pc.sum(pc.less(times, pa.scalar(end, TIME_TYPE))).as_py() or 0)


def _cut(chunks: Iterator[SimulatedChunk], source: SimulatorSource, start: date) -> Iterator[SimulatedChunk]:
    """The first `source.bars` bars, and the articles known by the end of the last one."""
    left = source.bars
    for chunk in chunks:
        if chunk.bars.num_rows < left:
            left -= chunk.bars.num_rows
            yield chunk
            continue
        oracle = chunk.oracle.slice(0, left)
        end = oracle["decision_at"][left - 1].as_py() + timedelta(microseconds=1)
        articles = chunk.articles.slice(0, _rows_before(chunk.articles["available_at"], end))
        yield SimulatedChunk(chunk.month, chunk.bars.slice(0, left), articles, oracle)
        return
    raise _too_short(source, start)
