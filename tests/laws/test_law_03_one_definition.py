"""Law 3: the row that serving computes from the tail is the row that the batch computes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute, latest
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, assert_equal, make_bars, sessions_of, spread

BARS = make_bars(4_500, seed=31)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
BATCH = compute(CATALOG, BARS, SESSIONS)
SPREADS = {name: spread(BATCH, name) for name in CATALOG.names}
EXACT = {f.name for f in CATALOG.features if f.exact}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(row=st.integers(CATALOG.lookback - 1, len(BARS) - 1), longer=st.integers(0, 500))
def test_latest_equals_the_batch_row(row: int, longer: int) -> None:
    start = max(row + 1 - CATALOG.lookback - longer, 0)
    served = latest(CATALOG, BARS.slice(start, row + 1 - start), SESSIONS)
    assert_equal(served, BATCH.slice(row, 1), SPREADS, EXACT)


def test_latest_equals_the_batch_row_around_flat_minutes_and_spikes() -> None:
    for row in (*range(1_498, 1_545), *range(2_248, 2_275)):
        served = latest(CATALOG, BARS.slice(row + 1 - CATALOG.lookback, CATALOG.lookback), SESSIONS)
        assert_equal(served, BATCH.slice(row, 1), SPREADS, EXACT)


def test_at_the_start_of_history_both_have_the_same_nulls() -> None:
    for row in (0, 1, 59, 700, CATALOG.lookback - 2):
        served = latest(CATALOG, BARS.head(row + 1), SESSIONS, from_start=True)
        assert_equal(served, BATCH.slice(row, 1), SPREADS, EXACT)
