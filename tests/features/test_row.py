"""The plan of a row: every feature of every catalog, and no expression that its features do not need."""

from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest

from marketray.features.catalog import Catalog, build_catalog
from marketray.features.definition import NEWS
from marketray.features.kernel import compute
from marketray.features.row import RowPlan
from marketray.settings import FeatureSettings
from marketray.settings_sections import FeatureFile
from tests.features.market import COLUMNS, assert_equal, make_bars, rough_bars, sessions_of, spread
from tests.features.newsfeed import articles

DEPTH = ("bid_size", "ask_size")
BARS = make_bars(1_600, seed=37)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)

ROLLING_TIME = ("has_original_prev_30_to_60min", "has_original_prev_30_to_360min")
"""Features that count bars of a span of time, which no other feature does: Polars evaluates them."""


@pytest.fixture(scope="module")
def rough() -> pl.DataFrame:
    """Bars with holes, flat and silent stretches, a jump, no trades, and unknown volumes and quotes."""
    return rough_bars(3_300, seed=41)


def assert_rows_equal(catalog: Catalog, bars: pl.DataFrame, sizes: list[int]) -> None:
    """The live rows after so many bars are those of the batch."""
    news = articles(600, 43) if catalog.news_columns else None
    sessions = sessions_of(bars["time"])
    batch = compute(catalog, bars, sessions, news)
    spreads = {name: spread(batch, name) for name in catalog.names}
    exact = {f.name for f in catalog.features if f.exact}
    plan = RowPlan(catalog)
    got = [plan.evaluate(bars[:n].tail(catalog.lookback), sessions, news).frame() for n in sizes]
    assert_equal(pl.concat(got), batch[[n - 1 for n in sizes]], spreads, exact)


@pytest.mark.parametrize("kind", ["standard", "seed-compatible"])
@pytest.mark.parametrize("kept", [COLUMNS[:5], (*COLUMNS, *DEPTH, NEWS)], ids=["prices", "everything"])
def test_every_feature_on_rough_bars(kind: str, kept: tuple[str, ...], rough: pl.DataFrame) -> None:
    catalog = build_catalog(FeatureSettings(catalog=kind), kept)
    rng = np.random.default_rng(47)
    sizes = {1, 2, 3, 11, 20, 21, 60, 61, 120, 400, 757, 998, 1_440, 1_441, bars := rough.height}
    sizes |= set(rng.integers(1, bars, 20).tolist()) | set(range(2_580, 2_600))  # the hole's edge
    assert_rows_equal(catalog, rough, sorted(sizes))


@pytest.mark.parametrize("group", sorted({f.group for f in CATALOG.features}))
@pytest.mark.parametrize("size", [1, 40, 1_600])
def test_a_catalog_of_one_group_gives_the_row_of_the_batch(group: str, size: int) -> None:
    assert_rows_equal(build_catalog(FeatureSettings(groups=(group,)), COLUMNS), BARS, [size])


@pytest.mark.parametrize(("kind", "left"), [("standard", ()), ("seed-compatible", ROLLING_TIME)])
def test_no_built_in_feature_needs_polars(kind: str, left: tuple[str, ...]) -> None:
    catalog = build_catalog(FeatureSettings(catalog=kind), (*COLUMNS, *DEPTH, NEWS))
    assert set(RowPlan(catalog).by_polars) == set(left)


OWN = """
import polars as pl
from marketray.features.user import feature

@feature(lookback=20)
def skew(): return pl.col("close").diff().rolling_skew(19)

@feature(lookback=21)
def after_skew(): return pl.col("skew").shift(1).abs()

@feature(lookback=800)
def doubled(): return pl.col("close").map_batches(lambda s: s * 2, return_dtype=pl.Float64)

@feature(lookback=3)
def plain(): return pl.col("close").shift(2).log()
"""


def test_what_the_graph_does_not_know_is_left_to_polars_and_right() -> None:
    own = FeatureFile(path="/mine.py", text=OWN)
    catalog = build_catalog(FeatureSettings(files=(own,), groups=("user", "returns")), COLUMNS)
    assert RowPlan(catalog).by_polars == ("skew", "after_skew", "doubled")
    assert_rows_equal(catalog, BARS, [1, 2, 3, 20, 21, 22, 799, 800, 1_600])


def test_a_function_that_cannot_be_written_down_is_left_to_polars() -> None:
    lock = threading.Lock()
    held = pl.col("close").map_batches(lambda s: s if lock else -s, return_dtype=pl.Float64)
    (layer,) = (catalog := build_catalog(FeatureSettings(groups=("returns",)), COLUMNS)).layers_of(
        ["return_5"]
    )
    one = catalog.subset(["return_5"])
    object.__setattr__(one, "layers", ((held.alias("return_5"),),))
    assert len(layer) == 1
    assert RowPlan(one).by_polars == ("return_5",)
    assert RowPlan(one).evaluate(BARS.head(9), SESSIONS).values == [BARS["close"][8]]


def test_layers_of_a_feature_hold_what_it_is_made_of_and_nothing_else() -> None:
    layers = CATALOG.layers_of(["volatility_ratio_10_60"])
    assert [sorted(e.meta.output_name() for e in layer) for layer in layers] == [
        ["_previous_close"],
        ["_log_return"],
        ["realized_volatility_10", "realized_volatility_60"],
        ["volatility_ratio_10_60"],
    ]


def test_a_plan_is_made_once_for_a_catalog_and_kept_for_the_latest_only() -> None:
    catalogs = [build_catalog(FeatureSettings(groups=("returns",)), COLUMNS) for _ in range(5)]
    plans = [RowPlan.of(catalog) for catalog in catalogs]
    assert [plan.catalog is catalog for plan, catalog in zip(plans, catalogs, strict=True)] == [True] * 5
    assert RowPlan.of(catalogs[1]) is plans[1]
    assert RowPlan.of(catalogs[0]) is not plans[0]
    assert RowPlan.of(catalogs[1]) is plans[1]
    assert RowPlan.of(catalogs[2]) is not plans[2]
