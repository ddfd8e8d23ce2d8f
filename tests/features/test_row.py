"""The plan of a row: every group of the catalog alone, and no expression that its features do not need."""

from __future__ import annotations

import pytest

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.row import RowPlan
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, assert_equal, make_bars, sessions_of, spread

BARS = make_bars(1_600, seed=37)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)


@pytest.mark.parametrize("group", sorted({f.group for f in CATALOG.features}))
@pytest.mark.parametrize("size", [1, 40, 300, 1_600])
def test_a_catalog_of_one_group_gives_the_row_of_the_batch(group: str, size: int) -> None:
    catalog = build_catalog(FeatureSettings(groups=(group,)), COLUMNS)
    batch = compute(catalog, BARS, SESSIONS)
    spreads = {name: spread(batch, name) for name in catalog.names}
    got = RowPlan(catalog).evaluate(BARS.head(size), SESSIONS).frame()
    assert_equal(got, batch.slice(size - 1, 1), spreads, {f.name for f in catalog.features if f.exact})


def test_layers_of_a_feature_hold_what_it_is_made_of_and_nothing_else() -> None:
    layers = CATALOG.layers_of(["volatility_ratio_10_60"])
    assert [sorted(e.meta.output_name() for e in layer) for layer in layers] == [
        ["_previous_close"],
        ["_log_return"],
        ["realized_volatility_10", "realized_volatility_60"],
        ["volatility_ratio_10_60"],
    ]
