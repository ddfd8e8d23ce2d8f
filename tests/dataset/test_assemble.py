from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from marketray.dataset.assemble import DROP_REASONS, eligible_rows, gold_rows, label_month
from marketray.dataset.labels import label_bars
from marketray.errors import DataError
from marketray.sessions import trading_sessions
from marketray.settings import LabelSettings
from tests.dataset.synthetic import make_bars

RULES = LabelSettings()
HALTS = ("17:00-18:00 America/New_York",)


def test_labels_do_not_depend_on_where_months_are_cut() -> None:
    start, end = date(2024, 10, 28), date(2024, 11, 4)  # a session runs over the end of October, UTC
    sessions = trading_sessions("CMES", start, end, HALTS)
    bars = make_bars(sessions, start, end, seed=3)
    whole = label_bars(bars, sessions, RULES)
    october = pl.col("time") < datetime(2024, 11, 1, tzinfo=UTC)
    first, second = bars.filter(october), bars.filter(~october)
    parts = [
        label_month(first, second, sessions, RULES),
        label_month(second, second.clear(), sessions, RULES),
    ]
    assert pl.concat(parts).equals(whole)
    assert parts[0]["label_end_at"].max() > datetime(2024, 11, 1, tzinfo=UTC)
    assert label_month(first.clear(), second, sessions, RULES).height == 0


def test_every_bar_is_kept_or_dropped_for_its_first_reason() -> None:
    day = date(2024, 11, 27)
    sessions = trading_sessions("CMES", day, day, HALTS)
    hours = trading_sessions("XNYS", day, day)
    bars = make_bars(sessions, day, day, missing=0.1)
    labelled = label_bars(bars, sessions, RULES)
    lag = pl.Series("return_1_lag_0", [None if k % 100 == 7 else 0.0 for k in range(bars.height)])
    lags = bars.select("time").with_columns(lag, return_1_lag_1=0.0)
    got = eligible_rows(labelled, lags, warm_up_rows=50, decision_sessions=hours)
    expected = []
    counts = dict.fromkeys(DROP_REASONS, 0)
    opens, closes = datetime(2024, 11, 27, 14, 30, tzinfo=UTC), datetime(2024, 11, 27, 21, 0, tzinfo=UTC)
    for k, (decision, why) in enumerate(labelled.select("decision_at", "reason").iter_rows()):
        if k < 50:
            counts["warm_up"] += 1
        elif not opens <= decision < closes:
            counts["outside_decision_hours"] += 1
        elif why is not None:
            counts[why] += 1
        elif k % 100 == 7:
            counts["missing_lags"] += 1
        else:
            expected.append(k)
    assert got.rows["position"].to_list() == expected
    assert got.dropped == counts
    assert counts["missing_lags"] > 0
    assert got.rows["decision_at"].equals(labelled["decision_at"].gather(expected))
    assert bars.height == len(expected) + sum(counts.values())


def test_without_lags_and_hours_the_labels_alone_decide() -> None:
    day = date(2024, 11, 29)
    sessions = trading_sessions("XNYS", day, day)
    labelled = label_bars(make_bars(sessions, day, day), sessions, RULES)
    got = eligible_rows(labelled, labelled.select("time"), warm_up_rows=0)
    assert got.rows.height == labelled["label_return"].count()
    assert got.labels.kept == got.rows.height


def test_gold_rows_hold_identity_labels_and_float32_features() -> None:
    day = date(2024, 11, 29)
    sessions = trading_sessions("XNYS", day, day)
    bars = make_bars(sessions, day, day, missing=0)
    labelled = label_bars(bars, sessions, RULES)
    features = bars.select("time").with_columns(
        a=pl.int_range(210).cast(pl.Float64) / 3, b=pl.lit(None, dtype=pl.Float64)
    )
    got = gold_rows("X", labelled, features, np.array([3, 5], dtype=np.int32), ["b", "a"], RULES)
    assert got.columns == [
        "row_id",
        "instrument",
        "time",
        "decision_at",
        "session_open_at",
        "label_end_at",
        "close",
        "label_return",
        "label_return_60",
        "label_up",
        "label_class",
        "b",
        "a",
    ]
    assert got["row_id"].to_list() == ["X@20241129T1434", "X@20241129T1436"]
    assert got["label_return"][0] == bars["close"][33] / bars["close"][3] - 1
    assert got["label_return_60"][1] == bars["close"][65] / bars["close"][5] - 1
    assert got["a"].to_list() == [float(np.float32(1.0)), float(np.float32(5 / 3))]
    assert got["b"].to_list() == [None, None]


def test_features_of_other_bars_are_refused() -> None:
    day = date(2024, 11, 29)
    sessions = trading_sessions("XNYS", day, day)
    labelled = label_bars(make_bars(sessions, day, day), sessions, RULES)
    with pytest.raises(DataError, match="do not belong to the month's"):
        eligible_rows(labelled, labelled.select("time").head(5), warm_up_rows=0)
    with pytest.raises(DataError, match="required: the same times"):
        gold_rows("X", labelled, labelled.select("time").reverse(), np.array([0], dtype=np.int32), [], RULES)
