from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.dataset.labels import REASONS, LabelReport, Moments, label_bars, label_columns, label_report
from marketray.errors import DataError
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import LabelSettings
from tests.dataset.synthetic import MINUTE, make_bars

START = int(datetime(2024, 3, 4, 14, 0, tzinfo=UTC).timestamp() * 1e6)


def hand_sessions(spans: list[tuple[int, int]]) -> Sessions:
    frame = pl.DataFrame(
        {
            "session": range(len(spans)),
            "session_date": [date(2024, 3, 4)] * len(spans),
            "open_at": [START + a * MINUTE for a, _ in spans],
            "close_at": [START + b * MINUTE for _, b in spans],
        },
        schema_overrides={"open_at": pl.Int64, "close_at": pl.Int64},
    )
    return Sessions(frame.with_columns(pl.col("open_at", "close_at").cast(pl.Datetime("us", "UTC"))))


def hand_bars(minutes: list[int], close: list[float] | None = None) -> pl.DataFrame:
    values = close or [100.0 + 0.1 * m for m in minutes]
    time = pl.Series([START + m * MINUTE for m in minutes], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"time": time, "close": pl.Series(values, dtype=pl.Float64)})


def brute_force(
    minutes: list[int],
    close: list[float],
    spans: list[tuple[int, int]],
    h: int,
    tolerance: int,
    interval: int,
) -> list[tuple[float | None, int | None, str | None]]:
    """Label, end minute and reason of every bar, by the words of the law, one bar at a time."""

    def session(m: int) -> int | None:
        return next((k for k, (a, b) in enumerate(spans) if a <= m < b), None)

    found: list[tuple[float | None, int | None, str | None]] = []
    for i, m in enumerate(minutes):
        t = m + interval
        mine = session(m)
        if mine is None:
            found.append((None, None, "outside_session"))
            continue
        ends = [
            (x + interval, c)
            for x, c in zip(minutes, close, strict=True)
            if t < x + interval <= t + h and session(x) == mine
        ]
        if ends and ends[-1][0] >= t + h - tolerance:
            found.append((ends[-1][1] / close[i] - 1, ends[-1][0], None))
        elif spans[mine][1] < t + h - tolerance:
            found.append((None, None, "session_end"))
        else:
            found.append((None, None, "no_bar_in_window"))
    return found


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]], int, int, int]:
    interval = draw(st.sampled_from([1, 1, 5]))
    cuts = sorted(draw(st.sets(st.integers(0, 30), min_size=2, max_size=6)))
    spans = [(a * 5, b * 5) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    if draw(st.booleans()):  # sessions that touch
        spans = [(a * 5, b * 5) for a, b in pairwise(cuts)]
    minutes = sorted(draw(st.sets(st.integers(0, 150 // interval), min_size=0, max_size=90)))
    h = draw(st.integers(1, 8)) * interval
    return [m * interval for m in minutes], spans, h, draw(st.integers(0, h - 1)), interval


@settings(max_examples=200, deadline=None)
@given(markets())
def test_labels_equal_a_loop_over_bars(
    market: tuple[list[int], list[tuple[int, int]], int, int, int],
) -> None:
    minutes, spans, h, tolerance, interval = market
    rng = np.random.default_rng(len(minutes))
    close = (100 + rng.random(len(minutes))).tolist()
    rules = LabelSettings(
        horizon_minutes=h, label_tolerance_minutes=tolerance, extra_horizons_minutes=(2 * h,)
    )
    got = label_bars(hand_bars(minutes, close), hand_sessions(spans), rules, bar_interval_minutes=interval)
    expected = brute_force(minutes, close, spans, h, tolerance, interval)
    assert got["label_return"].to_list() == [
        pytest.approx(e[0], rel=1e-12) if e[0] is not None else None for e in expected
    ]
    ends = (got["label_end_at"].to_physical() - START) // MINUTE
    assert ends.to_list() == [e[1] for e in expected]
    assert got["reason"].to_list() == [e[2] for e in expected]
    further = [e[0] for e in brute_force(minutes, close, spans, 2 * h, tolerance, interval)]
    assert got[f"label_return_{2 * h}"].is_null().to_list() == [v is None for v in further]
    np.testing.assert_allclose(
        got[f"label_return_{2 * h}"].drop_nulls(), [v for v in further if v is not None], rtol=1e-12
    )
    report = label_report(got)
    assert report.rows == report.kept + sum(report.dropped.values())


def test_a_half_day_ends_its_labels_at_the_early_close() -> None:
    day = date(2024, 11, 29)  # XNYS closes at 13:00 New York = 18:00 UTC
    sessions = trading_sessions("XNYS", day, day)
    got = label_bars(make_bars(sessions, day, day, missing=0), sessions, LabelSettings())
    assert got.height == 210
    kept = got.filter(pl.col("reason").is_null())
    # exact labels end with the decision at 17:30; the tolerance reaches five minutes further
    assert kept["decision_at"][-1] == datetime(2024, 11, 29, 17, 35, tzinfo=UTC)
    assert kept["label_end_at"].max() == datetime(2024, 11, 29, 18, 0, tzinfo=UTC)
    assert got.filter(pl.col("reason") == "session_end").height == 25


@pytest.mark.parametrize(
    ("day", "opens"), [(date(2025, 3, 7), 14), (date(2025, 3, 10), 13)]
)  # the Friday before and the Monday after New York's change of clocks
def test_daylight_saving_moves_the_session_in_utc(day: date, opens: int) -> None:
    sessions = trading_sessions("XNYS", day, day)
    got = label_bars(make_bars(sessions, day, day, missing=0), sessions, LabelSettings())
    assert got["session_open_at"].unique().to_list() == [
        datetime(day.year, day.month, day.day, opens, 30, tzinfo=UTC)
    ]
    assert got["reason"].is_null().sum() == 390 - 25


def test_no_label_reaches_over_the_daily_break() -> None:
    day = date(2024, 3, 5)
    sessions = trading_sessions("CMES", day, day, ("17:00-18:00 America/New_York",))
    bars = make_bars(sessions, day, day, missing=0)
    got = label_bars(bars, sessions, LabelSettings()).filter(pl.col("reason").is_null())
    closes = datetime(2024, 3, 5, 22, 0, tzinfo=UTC)  # 17:00 New York, winter time
    before = got.filter(pl.col("decision_at") <= closes)
    assert before["label_end_at"].max() == closes
    assert before["decision_at"].max() == datetime(2024, 3, 5, 21, 35, tzinfo=UTC)


def test_direction_and_classes_follow_the_return_and_edges_belong_to_the_class_below() -> None:
    rules = LabelSettings(horizon_minutes=1, label_tolerance_minutes=0, class_edges=(-0.5, -0.25, 0.25, 0.5))
    returns = [-0.75, -0.5, -0.375, -0.25, 0.0, 0.25, 0.375, 0.5, 0.75]
    minutes, close = [], []
    for k, r in enumerate(returns):  # pairs of bars, far apart
        minutes += [10 * k, 10 * k + 1]
        close += [128.0, 128.0 * (1 + r)]
    got = label_bars(hand_bars(minutes, close), hand_sessions([(0, 100)]), rules).filter(
        pl.col("reason").is_null()
    )
    assert got["label_return"].to_list() == returns
    assert got["label_class"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert got["label_up"].to_list() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert got.schema["label_class"] == got.schema["label_up"] == pl.Int8


def test_label_columns_name_every_horizon() -> None:
    assert label_columns(LabelSettings(extra_horizons_minutes=(60, 90))) == (
        "label_end_at",
        "label_return",
        "label_return_60",
        "label_return_90",
        "label_up",
        "label_class",
    )


def test_no_bars_have_no_labels() -> None:
    got = label_bars(hand_bars([]), hand_sessions([(0, 10)]), LabelSettings())
    assert got.height == 0
    assert label_report(got) == LabelReport()


def test_reports_add_up_over_partitions() -> None:
    day = date(2024, 11, 29)
    sessions = trading_sessions("XNYS", day, day)
    got = label_bars(
        make_bars(sessions, day, day, missing=0.3), sessions, LabelSettings(label_tolerance_minutes=1)
    )
    whole, parts = (
        label_report(got),
        LabelReport.total([label_report(got.head(70)), label_report(got.tail(-70))]),
    )
    assert (parts.rows, parts.kept, parts.dropped) == (whole.rows, whole.kept, whole.dropped)
    labels = got["label_return"].drop_nulls().to_numpy()
    loose = got.filter(pl.col("reason").is_not_null())["loose_return"].drop_nulls().to_numpy()
    assert parts.kept_returns.sd == pytest.approx(labels.std(), rel=1e-9)
    assert parts.summary() == {
        "rows": got.height,
        "kept": len(labels),
        "dropped": whole.dropped,
        "kept_label_sd": pytest.approx(labels.std()),
        "dropped_label_sd": pytest.approx(loose.std()),
        "dropped_with_a_close": len(loose),
    }
    assert set(whole.dropped) == set(REASONS)
    assert Moments().sd is None


@pytest.mark.parametrize("minutes", [[0, 0], [0, 2, 1]])
def test_times_must_increase(minutes: list[int]) -> None:
    with pytest.raises(DataError, match="strictly increasing times"):
        label_bars(hand_bars(minutes), hand_sessions([(0, 9)]), LabelSettings())


@pytest.mark.parametrize("close", [[1.0, 0.0], [1.0, float("nan")], [1.0, None]])
def test_closes_must_be_positive(close: list[float]) -> None:
    with pytest.raises(DataError, match="required: positive closes"):
        label_bars(hand_bars([0, 1], close), hand_sessions([(0, 9)]), LabelSettings())
