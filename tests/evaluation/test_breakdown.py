"""Figures by group against the same figures of rows picked by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.evaluation.breakdown import (
    breakdown,
    hour_of_session,
    month,
    tercile,
    tercile_cuts,
)
from marketray.evaluation.metrics import hit_rate
from marketray.evaluation.selection import Rows

MINUTE = 60_000_000
START = int(datetime(2019, 1, 31, 22, 0, tzinfo=UTC).timestamp()) * 1_000_000
N = 400
RNG = np.random.default_rng(3)
TIMES = START + MINUTE * np.arange(N)
OPEN = np.where(np.arange(N) < 150, START - 30 * MINUTE, START + 150 * MINUTE)  # two sessions
Y = RNG.standard_normal(N) * 1e-3
FORECAST = 0.3 * Y + RNG.standard_normal(N) * 2e-4
VOLATILITY = RNG.gamma(3, 1, N)
ROWS = Rows(Y, {"zero": np.zeros(N)}, TIMES, 5)


def found(**changes: object) -> dict[str, list[dict[str, object]]]:
    options = {"session_open_us": OPEN, "volatility": VOLATILITY, "cuts": (2.0, 3.5)} | changes
    return breakdown(ROWS, FORECAST, **options)  # type: ignore[arg-type]


def test_every_group_has_the_figures_of_its_rows() -> None:
    covered = RNG.random(N) < 0.8
    tables = found(covered=covered)
    minutes = (TIMES - OPEN) // MINUTE
    expected = {
        "month": [("2019-01", TIMES < START + 120 * MINUTE), ("2019-02", TIMES >= START + 120 * MINUTE)],
        "hour_of_session": [(f"{h}–{h + 1} h", minutes // 60 == h) for h in range(5)],
        "volatility": [
            ("low", VOLATILITY <= 2),
            ("middle", (VOLATILITY > 2) & (VOLATILITY <= 3.5)),
            ("high", VOLATILITY > 3.5),
        ],
    }
    assert set(tables) == set(expected)
    for by, groups in expected.items():
        assert [row["name"] for row in tables[by]] == [name for name, _ in groups]
        for row, (_, at) in zip(tables[by], groups, strict=True):
            error, zero = np.mean((Y[at] - FORECAST[at]) ** 2), np.mean(Y[at] ** 2)
            hits = hit_rate(Y[at], FORECAST[at], TIMES[at], 5)
            assert row == {
                "name": row["name"],
                "n": at.sum(),
                "rmse_pct": pytest.approx(100 * np.sqrt(error)),
                "zero_rmse_pct": pytest.approx(100 * np.sqrt(zero)),
                "r2_oos": pytest.approx(1 - error / zero),
                "hit_rate": {"rate": hits.rate, "low": hits.low, "high": hits.high},
                "coverage_80": pytest.approx(covered[at].mean()),
            }
        assert sum(row["n"] for row in tables[by]) == N  # type: ignore[misc]


def test_without_intervals_there_is_no_coverage_and_without_movement_no_skill() -> None:
    rows = Rows(np.where(OPEN < START, 0.0, Y), {}, TIMES, 5)
    tables = breakdown(rows, FORECAST, session_open_us=OPEN, volatility=VOLATILITY, cuts=(2.0, 3.5))
    assert {row["coverage_80"] for by in tables.values() for row in by} == {None}
    calm = breakdown(
        Rows(np.zeros(N), {}, TIMES, 5),
        FORECAST,
        session_open_us=OPEN,
        volatility=VOLATILITY,
        cuts=(2.0, 3.5),
    )
    assert {row["r2_oos"] for by in calm.values() for row in by} == {None}
    assert {row["hit_rate"]["rate"] for by in calm.values() for row in by} == {None}


def test_terciles_are_cut_on_training_rows_alone() -> None:
    train = np.r_[np.arange(1.0, 10.0), np.nan]
    cuts = tercile_cuts(train)
    assert cuts == pytest.approx((np.quantile(train[:-1], 1 / 3), np.quantile(train[:-1], 2 / 3)))
    groups = dict(tercile([cuts[0], 99.0, np.nan, -5.0, cuts[1]], cuts))
    assert {name: rows.nonzero()[0].tolist() for name, rows in groups.items()} == {
        "low": [0, 3],
        "middle": [4],
        "high": [1],
        "unknown": [2],
    }
    with pytest.raises(DataError, match="tercile_cuts: none of 2 volatilities is finite"):
        tercile_cuts([np.nan, np.nan])


def test_groups_are_in_order_of_time() -> None:
    us = np.array([START + 400 * 86_400_000_000, START])
    assert [name for name, _ in month(us)] == ["2019-01", "2020-03"]
    late, first = hour_of_session(us, us - np.array([0, 11 * 3_600_000_000]))
    assert (late[0], first[0]) == ("0–1 h", "11–12 h")


def test_arrays_of_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"breakdown: 400 rows, arrays of shapes .*required: \(400,\) each"):
        found(covered=np.ones(3, bool))
    with pytest.raises(DataError, match="breakdown: 400 rows"):
        found(volatility=VOLATILITY[1:])
