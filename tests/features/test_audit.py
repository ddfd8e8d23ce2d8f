"""The audits accuse every planted offender, by name and by how much, and nobody else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from marketray.errors import DataError
from marketray.features.audit import look_ahead
from marketray.features.audit_fitted import fitted_on
from marketray.features.catalog import build_catalog
from marketray.features.fits import AboveMedian, PercentileRank, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.features.warmup import SHARES, warm_up
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of
from tests.features.offenders import HONEST, LOOK_AHEAD, TOO_SHORT, planted

BARS = make_bars(4_400, seed=61)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
SMALL = CATALOG.subset(["return_2"])


@pytest.fixture(scope="module")
def accused() -> dict:
    """Findings over offenders and honest features audited together, by name."""
    return {f.feature: f for f in look_ahead(planted(CATALOG, LOOK_AHEAD, HONEST), BARS, SESSIONS)}


@pytest.fixture(scope="module")
def measured() -> dict:
    """Warm-up results over short lookbacks and honest features audited together, by name."""
    return {m.feature: m for m in warm_up(planted(CATALOG, TOO_SHORT, HONEST), BARS, SESSIONS)}


def test_there_are_enough_offenders() -> None:
    assert len(LOOK_AHEAD) >= 20
    assert len(TOO_SHORT) >= 10


@pytest.mark.parametrize("name", LOOK_AHEAD)
def test_a_look_ahead_is_named(accused: dict, name: str) -> None:
    finding = accused[name]
    assert finding.rows >= 1
    assert finding.bars_ahead >= 1
    assert "repeated" not in finding.when
    assert finding.difference is None or finding.difference > 0


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_feature_of_a_user_is_not_accused(accused: dict, measured: dict, name: str) -> None:
    assert name not in accused
    assert measured[name].enough, measured[name]


def test_the_size_of_a_look_ahead_is_told(accused: dict) -> None:
    assert accused["next_return"].bars_ahead == 1
    assert accused["return_of_the_label"].bars_ahead == 30
    assert accused["centred_mean"].bars_ahead == 10
    assert accused["lag_with_wrong_sign"].bars_ahead == 5
    assert set(accused["next_return"].when) >= {"cut off", "changed"}
    assert accused["minutes_to_next_bar"].when == ("cut off", "deleted")  # prices do not matter to it
    assert accused["demeaned"].first_decision_at == BARS["time"][1] + (BARS["time"][1] - BARS["time"][0])
    ratio = accused["next_return"]
    iqr = LOOK_AHEAD["next_return"][1]
    values = BARS.select(iqr.alias("x"))["x"]
    spread = values.quantile(0.75) - values.quantile(0.25)
    assert ratio.difference_in_iqr == pytest.approx(ratio.difference / spread)


def test_a_feature_that_is_not_repeatable_is_accused_of_that() -> None:
    state = iter(range(10_000))
    moody = pl.col("close").map_batches(lambda s: s + next(state), return_dtype=pl.Float64)
    (found,) = look_ahead(planted(CATALOG, {"moody": (1, moody)}), BARS, SESSIONS, cuts=[2_000])
    assert found.when[0] == "repeated"


@pytest.mark.parametrize("name", TOO_SHORT)
def test_a_lookback_too_short_is_named(measured: dict, name: str) -> None:
    assert not measured[name].enough
    assert measured[name].error > 1e-9


def test_a_lookback_too_short_is_no_look_ahead_and_the_other_way_round(measured: dict) -> None:
    assert not any(measured[name].ahead for name in (*TOO_SHORT, *HONEST))
    names = ("next_return", "centred_mean", "demeaned", "session_high")
    offenders = planted(SMALL, {name: LOOK_AHEAD[name] for name in names})
    results = warm_up(offenders, BARS, SESSIONS)
    assert [(m.enough, m.ahead, m.required) for m in results] == [(False, True, None)] * len(names)


def test_the_lookback_that_would_do_is_told(measured: dict) -> None:
    required = {name: measured[name].required for name in TOO_SHORT}
    exact = ("mean_short_by_one", "partial_mean", "partial_high_short_by_one")
    assert [required[name] for name in exact] == [20, 20, 20]
    assert required["return_window_short_by_one"] == 21
    assert required["lag_of_return"] == 7
    assert required["row_number"] is None
    assert required["cumulative_volume"] is None
    # (1 - 2/21)^n of a deviation of some IQR is below 1e-9 of it near n = 9 ln(10) / 0.1
    assert 150 <= required["ema_with_window_as_lookback"] <= 260


def test_errors_of_a_recursive_mean_fall_with_the_bars(measured: dict) -> None:
    ema = measured["polars_ema"]
    assert ema.bars == tuple(round(share * 400) for share in SHARES)
    assert all(a >= b for a, b in zip(ema.errors, ema.errors[1:], strict=False))
    assert ema.errors[0] > 1e-6
    lag = measured["of_other_features"]
    assert math.isinf(lag.errors[0])
    assert lag.errors[4] == 0


def test_a_fitted_feature_is_accused_of_what_it_is_made_from() -> None:
    offenders = planted(SMALL, {"next_return": LOOK_AHEAD["next_return"], "mean": HONEST["polars_mean"]})
    made = {
        "next_score": ("next_return", StandardScore()),
        "next_flag": ("next_return", AboveMedian(1.0)),
        "honest_rank": ("mean", PercentileRank()),
    }
    fitted = tuple(FittedFeature(name, "g", of, fit, "-") for name, (of, fit) in made.items())
    cut = 2_000
    found = look_ahead(replace(offenders, fitted=fitted), BARS, SESSIONS, cuts=[cut])
    assert [f.feature for f in found] == ["next_return", "next_score", "next_flag"]
    of, score, flag = found
    assert (of.rows, of.bars_ahead) == (3, 1)  # the row before the cut, in three experiments
    assert (score.rows, score.bars_ahead) == (3 * cut, cut)  # its mean is another one for every row
    assert flag.rows < score.rows
    assert score.first_decision_at == BARS["time"][0] + (BARS["time"][1] - BARS["time"][0])


def test_fitted_features_know_the_given_rows_alone() -> None:
    rows = pl.DataFrame(
        {"x": [None, 1.0, 2.0, 3.0, 10.0], "y": [None] * 5}, schema_overrides={"y": pl.Float64}
    )
    features = [FittedFeature(f"{of}_high", "g", of, AboveMedian(1.5), "-") for of in ("x", "y")]
    found = fitted_on(features, rows)
    np.testing.assert_array_equal(found["x_high"], [np.nan, 0, 0, 0, 1])  # the median is 2.5
    np.testing.assert_array_equal(fitted_on(features, rows.head(4))["x_high"], [np.nan, 0, 0, 0])  # 2
    assert np.isnan(found["y_high"]).all()


def test_no_built_in_feature_is_accused() -> None:
    assert look_ahead(CATALOG, BARS, SESSIONS) == []
    results = warm_up(CATALOG, BARS, SESSIONS)
    assert [m.feature for m in results] == list(CATALOG.names)
    assert [m for m in results if not m.enough] == []


def test_the_audit_does_not_depend_on_the_seed() -> None:
    offenders = planted(CATALOG, LOOK_AHEAD)
    assert {f.feature for f in look_ahead(offenders, BARS, SESSIONS, seed=5)} == set(LOOK_AHEAD)
    short = planted(CATALOG, TOO_SHORT)
    assert {m.feature for m in warm_up(short, BARS, SESSIONS, seed=5) if not m.enough} == set(TOO_SHORT)


def test_features_longer_than_the_history_are_left_out() -> None:
    assert [m.feature for m in warm_up(planted(CATALOG, HONEST), BARS.head(100), SESSIONS)] == [
        name for name, (lookback, _) in HONEST.items() if lookback <= 50
    ]
    assert warm_up(CATALOG.subset(["return_since_open"]), BARS.head(100), SESSIONS) == []


def test_a_feature_that_cannot_run_on_a_short_history_is_an_error() -> None:
    def of_hundred(series: pl.Series) -> pl.Series:
        return series - series[100]

    needy = pl.col("close").map_batches(of_hundred, return_dtype=pl.Float64)
    with pytest.raises(DataError, match="features: an expression fails on .* bars"):
        look_ahead(planted(CATALOG, {"needy": (1, needy)}), BARS, SESSIONS)
