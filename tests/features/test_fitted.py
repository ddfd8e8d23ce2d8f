"""Fitted features: parameters and values against NumPy and SciPy, what is refused, catalog and user files."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from marketray.errors import ModelError, SettingsError
from marketray.features.catalog import build_catalog
from marketray.features.fits import AboveMedian, BelowMedian, Fit, PercentileRank, QuantileCuts, StandardScore
from marketray.features.fitted import Extension, FittedColumn, FittedFeature, fit_columns
from marketray.settings import FeatureSettings
from marketray.settings_sections import FeatureFile
from tests.features.market import COLUMNS

RISING: tuple[Fit, ...] = (
    QuantileCuts((0.1, 1 / 3, 0.9)),
    PercentileRank(),
    PercentileRank(points=4),
    StandardScore(),
    StandardScore(robust=True),
    AboveMedian(1.5),
)
FITS = (*RISING, BelowMedian(0.7))


def skewed(n: int, seed: int = 0) -> np.ndarray:
    """Float32 like a volatility, float64 in memory."""
    return np.random.default_rng(seed).lognormal(-8, 0.6, n).astype(np.float32).astype(float)


def applied(fit: Fit, training: np.ndarray, values: np.ndarray) -> np.ndarray:
    return fit.apply(values, np.array(fit.fit(training)))


def test_classes_are_those_of_the_quantiles() -> None:
    training, new = skewed(5_000), np.r_[skewed(500, seed=1), 0.0, 1.0]
    low, high = np.quantile(training, [1 / 3, 2 / 3])
    expected = np.select([new < low, new < high], [0, 1], 2)
    assert applied(QuantileCuts((1 / 3, 2 / 3)), training, new).tolist() == expected.tolist()
    np.testing.assert_allclose(np.bincount(expected) / len(new), 1 / 3, atol=0.06)
    on_the_cut = applied(QuantileCuts((0.5,)), np.array([1.0, 2.0, 3.0]), np.array([2.0]))
    assert on_the_cut.tolist() == [1.0]


def test_the_rank_is_the_share_of_training_values_below() -> None:
    training, new = skewed(5_000), np.r_[skewed(500, seed=1), 0.0, 1.0]
    got = applied(PercentileRank(), training, new)
    expected = stats.percentileofscore(training, new, kind="mean") / 100
    np.testing.assert_allclose(got, expected, atol=0.005)
    assert got[-2:].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(
        applied(PercentileRank(5_000), training, training[:50]),
        stats.percentileofscore(training, training[:50], kind="mean") / 100,
        atol=2e-4,
    )


def test_equal_training_values_count_half() -> None:
    training = np.r_[np.zeros(400), np.linspace(1, 2, 600)]
    got = applied(PercentileRank(), training, np.array([-1.0, 0.0, 1.5, 3.0]))
    np.testing.assert_allclose(got, [0.0, 0.2, 0.7, 1.0], atol=0.01)


def test_the_score_counts_standard_deviations() -> None:
    training, new = skewed(5_000), skewed(50, seed=1)
    np.testing.assert_allclose(applied(StandardScore(), training, new), stats.zmap(new, training), rtol=1e-12)
    mad = stats.median_abs_deviation(training, scale="normal")
    robust = (new - np.median(training)) / mad
    np.testing.assert_allclose(applied(StandardScore(robust=True), training, new), robust, rtol=1e-4)
    assert applied(StandardScore(), np.full(9, 3.0), np.array([3.0, 5.0])).tolist() == [0.0, 2.0]


def test_flags_compare_with_the_median() -> None:
    training = np.array([1.0, 2.0, 3.0, 4.0])
    values = np.array([1.74, 1.75, 1.76, 3.74, 3.75, 3.76])
    assert applied(AboveMedian(1.5), training, values).tolist() == [0, 0, 0, 0, 0, 1]
    assert applied(BelowMedian(0.7), training, values).tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("fit", FITS, ids=str)
def test_missing_values_stay_missing_and_json_brings_the_fit_back(fit: Fit) -> None:
    column = FittedColumn("f", "x", fit, fit.fit(skewed(100)))
    got = column.apply(np.array([np.nan, 1e-4, np.nan], np.float32))
    assert np.isnan(got).tolist() == [True, False, True]
    assert FittedColumn.from_json(json.loads(json.dumps(column.to_json()))) == column
    feature = FittedFeature("f", "g", "x", fit, fit.unit, "a file")
    again = FittedFeature.from_json(json.loads(json.dumps(feature.to_json())))
    assert (again, again.source, feature.formula.count("x") > 0) == (feature, "", True)


finite = st.floats(-1e3, 1e3, width=32)


@given(st.lists(finite, min_size=1, max_size=40), st.lists(finite, min_size=2, max_size=40))
def test_what_is_applied_is_monotone(training: list[float], values: list[float]) -> None:
    ordered = np.sort(np.array(values))
    for fit in RISING:
        assert (np.diff(applied(fit, np.array(training), ordered)) >= -1e-12).all(), fit
    assert (np.diff(applied(BelowMedian(0.7), np.array(training), ordered)) <= 0).all()


@given(st.lists(finite, min_size=1, max_size=40), finite)
def test_ranks_are_shares(training: list[float], value: float) -> None:
    assert 0 <= applied(PercentileRank(11), np.array(training), np.array([value]))[0] <= 1


RANK = FittedFeature("x_rank", "g", "x", PercentileRank(3), "fraction")


def test_columns_are_fitted_on_the_rows_given_and_appended() -> None:
    values = np.array([[9, 1, np.nan], [9, 2, 5], [9, 3, 7]], np.float32)
    score = FittedFeature("y_score", "g", "y", StandardScore(), "sd")
    made = fit_columns((RANK, score), ("a", "x", "y"), values)
    assert [c.parameters for c in made] == [(1.0, 2.0, 3.0), (6.0, 1.0)]
    out = Extension(("a", "x", "y"), ("y", "a"), made)(values)
    expected = [[np.nan, 9, 0, np.nan], [5, 9, 0.5, -1], [7, 9, 1, 1]]
    np.testing.assert_array_equal(out, np.array(expected, np.float32))
    assert (out.dtype, out.flags.c_contiguous) == (np.float32, True)
    alone = Extension(("a", "x", "y"), ("y",))(values)
    assert (alone[1:, 0].tolist(), alone.flags.c_contiguous) == ([5, 7], True)


def test_training_rows_without_a_value_are_refused() -> None:
    with pytest.raises(ModelError, match="'x_rank': x has no value in the 4 training rows; required: one"):
        fit_columns((RANK,), ("x",), np.full((4, 1), np.nan, np.float32))
    with pytest.raises(ModelError, match="'x_rank': of='x' is not among the 1 columns"):
        fit_columns((RANK,), ("y",), np.zeros((4, 1), np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantileCuts(()), r"QuantileCuts: shares=\(\); required: increasing"),
        (lambda: QuantileCuts((0.7, 0.3)), r"shares=\(0.7, 0.3\)"),
        (lambda: QuantileCuts((0.5, 1.0)), r"required: increasing numbers inside \(0, 1\)"),
        (lambda: PercentileRank(1), "PercentileRank: points=1; required: a whole number, at least 2"),
        (lambda: PercentileRank(2.5), "points=2.5; required"),
        (lambda: AboveMedian(0), "AboveMedian: factor=0; required: a number above 0"),
        (lambda: BelowMedian("2"), "BelowMedian: factor='2'; required"),
    ],
)
def test_wrong_settings_of_a_fit_are_refused(make: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()  # type: ignore[operator]


def test_damaged_descriptions_are_refused() -> None:
    for value in ({"kind": "oracle"}, {"points": 3}, {"kind": "percentile_rank", "depth": 2}):
        with pytest.raises(ModelError, match=f"{re.escape(str(value))}; required: a kind of"):
            Fit.from_json(value)
    with pytest.raises(ModelError, match="fitted feature 'f': got the parameters .*; required: 3 finite"):
        FittedColumn("f", "x", PercentileRank(3), (0.0, 1.0))
    with pytest.raises(ModelError, match="required: 2 finite numbers"):
        FittedColumn("f", "x", StandardScore(), (0.0, float("nan")))


NAMES = (
    "volatility_regime",
    "volatility_high",
    "volatility_low",
    "volatility_rank",
    "volume_rank",
    "range_rank",
)


def names(settings: FeatureSettings, columns: tuple[str, ...] = COLUMNS) -> tuple[str, ...]:
    return tuple(f.name for f in build_catalog(settings, columns).fitted)


def test_the_catalog_holds_them_beside_its_columns(caplog: pytest.LogCaptureFixture) -> None:
    catalog = build_catalog(FeatureSettings(), COLUMNS)
    assert tuple(f.name for f in catalog.fitted) == NAMES
    assert {f.of for f in catalog.fitted} <= set(catalog.names)
    assert not set(NAMES) & set(catalog.names)
    assert all(f.group == "regime" and f.formula and f.source and f.unit for f in catalog.fitted)
    without_volume = build_catalog(FeatureSettings(), COLUMNS[:5])
    assert "volume_rank" in without_volume.dropped
    assert len(without_volume.fitted) == len(NAMES) - 1
    assert names(FeatureSettings(exclude=("range_rank",))) == tuple(n for n in NAMES if n != "range_rank")
    assert names(FeatureSettings(groups=("returns",))) == ()
    with caplog.at_level(logging.INFO, logger="marketray"):
        assert names(FeatureSettings(groups=("volume", "regime"))) == ("volume_rank",)
    assert "left out with the features they are made from: volatility_regime" in caplog.text
    assert build_catalog(FeatureSettings(exclude=("range_rank",)), COLUMNS).hash != catalog.hash


HEAD = (
    "import polars as pl\nfrom marketray.features.user import feature, fitted_feature\n"
    "from marketray.features.fits import AboveMedian, QuantileCuts\n"
)


def settings_of(text: str, path: str = "/mine.py", **others: object) -> FeatureSettings:
    return FeatureSettings(files=(FeatureFile(path=path, text=HEAD + text),), **others)  # type: ignore[arg-type]


def test_a_user_s_file_registers_them() -> None:
    text = (
        "fitted_feature('busy', of='mine', fit=AboveMedian(2.0), group='own', unit='flag')\n"
        "fitted_feature('rsi_class', of='rsi_14', fit=QuantileCuts([0.2, 0.8]))\n"
        "@feature(lookback=2)\ndef mine(): return pl.col('close').diff()\n"
    )
    catalog = build_catalog(settings_of(text), COLUMNS)
    busy, by_class = catalog.fitted[-2:]
    assert busy == FittedFeature("busy", "own", "mine", AboveMedian(2.0), "flag")
    assert by_class == FittedFeature("rsi_class", "user", "rsi_14", QuantileCuts((0.2, 0.8)), "class, from 0")
    assert (busy.source, busy.formula) == ("/mine.py", "1 where mine > 2 × its training median, else 0")
    assert build_catalog(settings_of(text, path="/else.py"), COLUMNS).hash == catalog.hash
    only = build_catalog(settings_of(text, groups=("user", "momentum")), COLUMNS)
    assert [f.name for f in only.fitted] == ["rsi_class"]


def test_the_documented_example_works_as_written() -> None:
    page = (Path(__file__).parents[2] / "docs/user-features.md").read_text()
    example = next(t for t in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "fitted_feature" in t)
    files = (FeatureFile(path="/mine.py", text=example),)
    assert [f.name for f in build_catalog(FeatureSettings(files=files), COLUMNS).fitted[len(NAMES) :]] == [
        "rsi_class",
        "gap_rank",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("('Busy', of='rsi_14', fit=AboveMedian(1))", "/mine.py: 'Busy': name='Busy'; required: lower-case"),
        ("('busy', of='rsi_14', fit=AboveMedian(1), group='a b')", "'busy': group='a b'; required"),
        ("('busy', of='rsi_14', fit=max)", "'busy': fit=<built-in function max>; required: a kind of"),
        ("('busy', of='rsi', fit=AboveMedian(1))", "/mine.py: 'busy': of='rsi' is not a feature"),
        ("('busy', of='close', fit=AboveMedian(1))", "of='close' is not a feature"),
        ("('busy', of='_log_return', fit=AboveMedian(1))", "of='_log_return' is not a feature"),
        ("('busy', of='volume_rank', fit=AboveMedian(1))", "of='volume_rank' is not a feature"),
        ("('volume_rank', of='rsi_14', fit=AboveMedian(1))", "'volume_rank' is taken by marketray itself"),
        ("('rsi_14', of='rsi_7', fit=AboveMedian(1))", "'rsi_14' is taken by marketray itself"),
        ("('busy', of='rsi_14', fit=AboveMedian(-1))", "AboveMedian: factor=-1; required"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(call: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_catalog(settings_of(f"fitted_feature{call}\n"), COLUMNS)


def test_outside_of_a_features_file_a_call_does_nothing() -> None:
    from marketray.features.user import fitted_feature

    fitted_feature("anything", of="rsi_14", fit=PercentileRank())
    assert names(FeatureSettings()) == NAMES
