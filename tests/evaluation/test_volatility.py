from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from marketray.errors import DataError
from marketray.evaluation.volatility import ScaleForecast, fit_scale, minutes_since_open
from tests.evaluation.drifting import drifting_block

BLOCK = drifting_block(100, "none", 2)


def gamma_regression(design: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Means of a Gamma regression with log link, by statsmodels."""
    family = sm.families.Gamma(sm.families.links.Log())
    return np.asarray(sm.GLM(size, design, family=family).fit(tol=1e-12).fittedvalues)


def hats(minutes: np.ndarray) -> np.ndarray:
    """Linear between knots 30 minutes apart, each by its own interpolation."""
    knots = np.arange(60.0, 361.0, 30.0)
    return np.column_stack([np.interp(minutes, knots, row) for row in np.eye(len(knots))])


def test_the_forecast_equals_a_gamma_regression() -> None:
    logs = np.log(np.clip(BLOCK.values, *np.quantile(BLOCK.values.astype(float), (0.001, 0.999), axis=0)))
    expected = gamma_regression(np.hstack([logs, hats(minutes_since_open(BLOCK))]), np.abs(BLOCK.y))
    found = fit_scale(BLOCK).of(BLOCK)
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    assert np.mean(np.abs(BLOCK.y) / found) == pytest.approx(1, abs=1e-3)


def test_without_volatilities_the_time_of_the_session_is_left() -> None:
    bare = drifting_block(100, "none", 2, columns=False)
    made = fit_scale(bare)
    expected = gamma_regression(hats(minutes_since_open(bare)), np.abs(bare.y))
    np.testing.assert_allclose(made.of(bare), expected, rtol=1e-2)
    assert made.method == "time since the session's open alone (the dataset has no trailing volatility)"
    assert (made.columns, made.slopes) == ((), ())


def test_every_row_alone_gets_what_it_gets_among_others() -> None:
    made = fit_scale(BLOCK)
    whole, minutes = made.of(BLOCK), minutes_since_open(BLOCK)
    for i in (0, 777, len(BLOCK) - 1):
        assert made(BLOCK.values[i], minutes[i : i + 1])[0] == pytest.approx(whole[i], rel=1e-12)
    assert ScaleForecast.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_missing_and_extreme_values_stay_within_what_was_learned() -> None:
    made = fit_scale(BLOCK)
    centre = np.exp(np.array(made.centres))
    missing = made(np.full((1, 2), np.nan), [120.0])
    np.testing.assert_allclose(missing, made(centre, [120.0]), rtol=1e-12)
    np.testing.assert_array_equal(made([[0.0, 0.0]], [90.0]), made([made.lowest], [90.0]))
    np.testing.assert_array_equal(made([[9.0, 9.0]], [90.0]), made([made.highest], [90.0]))
    np.testing.assert_array_equal(made([centre], [5000.0]), made([centre], [30.0 * (len(made.seasonal) - 1)]))


def test_columns_that_say_nothing_are_left_out() -> None:
    values = BLOCK.values.copy()
    values[:, 0] = 0.0
    made = fit_scale(replace(BLOCK, values=values))
    assert made.columns == ("realized_volatility_60",)
    gaps = BLOCK.values.copy()
    gaps[::3, 1] = np.nan
    with_gaps = fit_scale(replace(BLOCK, values=gaps)).of(replace(BLOCK, values=gaps))
    assert np.isfinite(with_gaps).all()


def test_labels_without_any_size_are_refused() -> None:
    with pytest.raises(DataError, match="labels other than zero; required: at least 2 rows, not all zero"):
        fit_scale(replace(BLOCK, y=np.zeros(len(BLOCK))))
    with pytest.raises(DataError, match="fit_scale: got 1 rows"):
        fit_scale(BLOCK.take(slice(0, 1)))
