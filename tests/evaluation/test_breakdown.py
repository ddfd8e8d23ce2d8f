"""Figures by group against the same figures of rows picked by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.evaluation.breakdown import breakdown
from marketray.evaluation.intervals import Groups
from marketray.evaluation.metrics import hit_rate
from marketray.evaluation.selection import Rows

MINUTE = 60_000_000
START = int(datetime(2019, 1, 31, 22, 0, tzinfo=UTC).timestamp()) * 1_000_000
N = 400
RNG = np.random.default_rng(3)
TIMES = START + MINUTE * np.arange(N)
MINUTES = np.where(np.arange(N) < 150, 30, -150) + np.arange(N)  # since the open, in two sessions
Y = RNG.standard_normal(N) * 1e-3
FORECAST = 0.3 * Y + RNG.standard_normal(N) * 2e-4
VOLATILITY = RNG.gamma(3, 1, N)
ROWS = Rows(Y, {"zero": np.zeros(N)}, TIMES, 5)
GROUPS = Groups.of(MINUTES.astype(float), VOLATILITY, (2.0, 3.5))


def test_every_group_has_the_figures_of_its_rows() -> None:
    covered = RNG.random(N) < 0.8
    tables = breakdown(ROWS, FORECAST, GROUPS, covered)
    expected = {
        "month": [("2019-01", TIMES < START + 120 * MINUTE), ("2019-02", TIMES >= START + 120 * MINUTE)],
        "hour_of_session": [(f"0{h}", np.equal(MINUTES // 60, h)) for h in range(5)],
        "volatility": [
            ("low", VOLATILITY < 2),
            ("middle", (VOLATILITY >= 2) & (VOLATILITY < 3.5)),
            ("high", VOLATILITY >= 3.5),
        ],
    }
    assert list(tables) == list(expected)
    for by, groups in expected.items():
        assert [row["name"] for row in tables[by]] == [name for name, _ in groups]
        for row, (name, at) in zip(tables[by], groups, strict=True):
            error, zero = np.mean((Y[at] - FORECAST[at]) ** 2), np.mean(Y[at] ** 2)
            hits = hit_rate(Y[at], FORECAST[at], TIMES[at], 5)
            assert row == {
                "name": name,
                "n": at.sum(),
                "rmse_pct": pytest.approx(100 * np.sqrt(error)),
                "zero_rmse_pct": pytest.approx(100 * np.sqrt(zero)),
                "r2_oos": pytest.approx(1 - error / zero),
                "hit_rate": {"rate": hits.rate, "low": hits.low, "high": hits.high},
                "coverage_80": pytest.approx(covered[at].mean()),
            }
        assert sum(row["n"] for row in tables[by]) == N


def test_without_intervals_there_is_no_coverage_and_without_movement_no_skill() -> None:
    still = Rows(np.zeros(N), {}, TIMES, 5)
    rows = [row for by in breakdown(still, FORECAST, GROUPS).values() for row in by]
    assert {row["coverage_80"] for row in rows} == {None}
    assert {row["r2_oos"] for row in rows} == {None}
    assert {row["hit_rate"]["rate"] for row in rows} == {None}
    assert {row["zero_rmse_pct"] for row in rows} == {0.0}


def test_groups_without_rows_are_left_out_and_months_are_in_order() -> None:
    groups = Groups(np.array([7, 2]), np.array([2, 2]))
    late_first = Rows(Y[:2], {}, np.array([START + 400 * 86_400_000_000, START]), 5)
    tables = breakdown(late_first, FORECAST[:2], groups)
    names = {by: [row["name"] for row in found] for by, found in tables.items()}
    assert names == {"month": ["2019-01", "2020-03"], "hour_of_session": ["02", "07"], "volatility": ["high"]}


def test_arrays_of_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"breakdown: 400 rows, arrays of shapes .*required: \(400,\) each"):
        breakdown(ROWS, FORECAST, GROUPS, np.ones(3, bool))
    with pytest.raises(DataError, match="breakdown: 400 rows"):
        breakdown(ROWS, FORECAST[1:], GROUPS)
