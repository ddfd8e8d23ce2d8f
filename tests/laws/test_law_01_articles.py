"""Law 1, known time, for articles: usable at a decision only when available_at < decision_at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.ingest.articles import Precision, available_at
from marketray.ingest.sources.simulator_effects import remaining_drift
from marketray.settings import SimulatorSource
from tests.ingest.simulated import CMES, collect

moments = st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
SPAN = {"second": timedelta(0), "minute": timedelta(minutes=1), "hour": timedelta(hours=1)}


@given(moments, moments, st.sampled_from(get_args(Precision)), st.integers(0, 600))
def test_never_before_publication_or_collection_and_the_latency(
    published: datetime, collected: datetime, precision: Precision, latency: int
) -> None:
    known = available_at(published, collected, precision, latency_seconds=latency)
    assert known >= max(published, collected) + timedelta(seconds=latency)
    assert known.utcoffset() == timedelta(0)


@given(moments, st.sampled_from(["second", "minute", "hour"]))
def test_the_default_latency_is_60_seconds_after_the_end_of_the_span(
    published: datetime, precision: Precision
) -> None:
    known = available_at(published, published, precision)
    delay = known - published - timedelta(seconds=60)
    assert timedelta(0) <= delay <= SPAN[precision]
    assert (delay > timedelta(0)) == (precision != "second")


@given(moments, st.sampled_from(["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns"]))
def test_an_hourly_stamp_waits_for_the_end_of_the_sources_own_hour(published: datetime, zone: str) -> None:
    hour = published.astimezone(ZoneInfo(zone)).replace(minute=0, second=0, microsecond=0)
    known = available_at(hour.astimezone(UTC), datetime(1999, 1, 1, tzinfo=UTC), "hour", latency_seconds=0)
    assert known == hour.astimezone(UTC) + timedelta(hours=1)


@given(moments, st.sampled_from(["America/New_York", "Europe/Berlin", "Asia/Kolkata", "UTC", None]))
def test_a_day_stamp_waits_for_the_end_of_that_day(published: datetime, zone: str | None) -> None:
    known = available_at(published, datetime(1999, 1, 1, tzinfo=UTC), "day", zone, 0)
    there = known.astimezone(ZoneInfo(zone if zone else "Etc/GMT+12"))
    midnight = datetime.combine(published.date(), datetime.min.time()) + timedelta(days=1)
    assert there.replace(tzinfo=None) == midnight


def test_the_news_oracle_uses_no_article_at_or_after_the_decision() -> None:
    """A decision at 12:00:00 knows the article of 11:59:59 and not the one of 12:00:00."""
    data = collect(SimulatorSource(bars=150_000, effect="news", seed=8), CMES)
    available = data.articles["available_at"].to_physical().to_numpy()
    decision = data.oracle["decision_at"].to_physical().to_numpy()
    moved = np.flatnonzero(np.abs(data.oracle["news"].to_numpy()) > 1e-12)
    known = np.searchsorted(available, decision[moved], side="left")  # articles with available_at < decision
    recent = decision[moved] - available[known - 1]
    assert recent.min() > 0
    assert recent.max() <= 30 * 60_000_000
    assert data.articles.filter(pl.col("available_at").dt.second() == 0).height > 0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=80), st.data())
def test_perturbing_later_impulses_changes_no_forecast(impulses: list[float], data: st.DataObject) -> None:
    impulse, n = np.array(impulses), len(impulses)
    cut = data.draw(st.integers(1, n - 1))
    left = n - 1 - np.arange(n)
    changed = impulse.copy()
    changed[cut:] = 1e6
    before, after = remaining_drift(impulse, left, 1.0), remaining_drift(changed, left, 1.0)
    assert after[:cut] == pytest.approx(before[:cut], abs=1e-12)
