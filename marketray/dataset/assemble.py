"""One month's dataset rows: which bars are eligible, and their labels beside their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from marketray.dataset.labels import REASONS, LabelReport, label_bars, label_columns, label_report
from marketray.dataset.rows import row_ids
from marketray.errors import DataError
from marketray.sessions import Sessions
from marketray.settings import LabelSettings

__all__ = ["DROP_REASONS", "Eligible", "eligible_rows", "gold_rows", "label_month"]

DROP_REASONS = ("warm_up", "outside_decision_hours", *REASONS, "missing_lags")
"""Why a bar is no dataset row, in the order in which they are tried."""


@dataclass(frozen=True)
class Eligible:
    """The bars of one month that become dataset rows.

    Attributes
    ----------
    rows:
        position (Int32, row of the month), decision_at, session_open_at, label_end_at.
    dropped:
        Other bars by reason (`DROP_REASONS`).
    labels:
        Label report over all bars of the month.
    """

    rows: pl.DataFrame
    dropped: dict[str, int]
    labels: LabelReport = field(default_factory=LabelReport)


def label_month(
    bars: pl.DataFrame,
    following: pl.DataFrame,
    sessions: Sessions,
    labels: LabelSettings,
    *,
    bar_interval_minutes: int = 1,
) -> pl.DataFrame:
    """Label the bars of one month, given the bars that follow it.

    Parameters
    ----------
    bars, following:
        time and close of the month and of what comes after it; of the latter only what the longest
        horizon can reach is used.
    sessions, labels, bar_interval_minutes:
        As in `marketray.dataset.labels.label_bars`.

    Returns
    -------
    DataFrame
        One row for each of `bars`, see `marketray.dataset.labels.label_bars`.
    """
    if bars.height == 0:
        return label_bars(bars, sessions, labels, bar_interval_minutes=bar_interval_minutes)
    longest = max(labels.horizon_minutes, *labels.extra_horizons_minutes, 0) + bar_interval_minutes
    head = following.filter(pl.col("time") <= bars["time"][-1] + pl.duration(minutes=longest))
    together = pl.concat([bars.select("time", "close"), head.select("time", "close")])
    return label_bars(together, sessions, labels, bar_interval_minutes=bar_interval_minutes).head(bars.height)


def eligible_rows(
    labelled: pl.DataFrame,
    lags: pl.DataFrame,
    *,
    warm_up_rows: int,
    decision_sessions: Sessions | None = None,
) -> Eligible:
    """Keep the bars that every family can use, and count the others by reason.

    Parameters
    ----------
    labelled:
        A month out of `label_month`.
    lags:
        time and the lag columns, which no family may find null; the same bars.
    warm_up_rows:
        How many of the month's first bars precede the catalog's full lookback.
    decision_sessions:
        Hours in which to decide, open_at <= decision_at < close_at; None: all hours.

    Raises
    ------
    DataError
        Features and bars are not of the same times.
    """
    _require_same_times(labelled, lags)
    n = labelled.height
    warm = np.arange(n) < warm_up_rows
    closed = np.zeros(n, dtype=bool)
    if decision_sessions is not None:
        closed = decision_sessions.locate(labelled["decision_at"]) < 0
    columns = [c for c in lags.columns if c != "time"]
    missing = np.zeros(n, dtype=bool)
    if columns:
        missing = lags.select(pl.any_horizontal(pl.col(columns).is_null())).to_series().to_numpy()
    reason = labelled["reason"].fill_null("").to_numpy()
    tests = [warm, closed, *(reason == r for r in REASONS), missing]
    which = np.select(tests, range(len(tests)), default=-1)
    rows = (
        labelled.select("decision_at", "session_open_at", "label_end_at")
        .insert_column(0, pl.Series("position", np.arange(n, dtype=np.int32)))
        .filter(pl.Series(which < 0))
    )
    counts = np.bincount(which[which >= 0], minlength=len(DROP_REASONS))
    return Eligible(rows, dict(zip(DROP_REASONS, counts.tolist(), strict=True)), label_report(labelled))


def gold_rows(
    instrument: str,
    labelled: pl.DataFrame,
    features: pl.DataFrame,
    positions: np.ndarray[tuple[int], np.dtype[np.int32]],
    names: Sequence[str],
    labels: LabelSettings,
) -> pl.DataFrame:
    """Dataset rows: identity, labels, then the features as float32.

    Parameters
    ----------
    instrument:
        Instrument of all rows.
    labelled, features:
        One month's labels and features, the same bars.
    positions:
        Rows of the month to take, increasing.
    names:
        Feature columns, in stored order.
    labels:
        Names the label columns.

    Raises
    ------
    DataError
        Features and bars are not of the same times.
    """
    _require_same_times(labelled, features)
    index = pl.Series(positions)
    rows = labelled.select(pl.all().gather(index))
    head = rows.select(
        row_ids(instrument, rows["decision_at"].to_physical().to_numpy()),
        pl.lit(instrument).alias("instrument"),
        "time",
        "decision_at",
        "session_open_at",
        label_columns(labels)[0],
        "close",
        *label_columns(labels)[1:],
    )
    return head.hstack(features.select(pl.col(names).gather(index).cast(pl.Float32)))


def _require_same_times(labelled: pl.DataFrame, features: pl.DataFrame) -> None:
    if not labelled["time"].equals(features["time"]):
        msg = (
            f"features of {features.height} bars do not belong to the month's {labelled.height} bars; "
            "required: the same times"
        )
        raise DataError(msg, hint="run the features stage again")
