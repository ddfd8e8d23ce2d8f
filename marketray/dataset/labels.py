"""Labels by actual time: the simple return over (decision, decision + horizon], inside one session.

A label runs from the decision close to the last close in (t, t + h], which may lie at most the tolerance
before t + h and must belong to the same session. Where there is none, there is no label: nothing is filled.
With a tolerance of 0 the calm minutes would be dropped, since a minute without a trade has no bar.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.dataset.rows import utc_series
from marketray.errors import DataError
from marketray.sessions import Sessions
from marketray.settings import LabelSettings

__all__ = ["REASONS", "LabelReport", "Moments", "label_bars", "label_columns", "label_report"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MINUTE_US = 60_000_000

REASONS = ("outside_session", "session_end", "no_bar_in_window")
"""Why a bar has no label, in the order in which they are tried."""


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares; they add up over partitions."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def sd(self) -> float | None:
        """Population standard deviation; None without a value."""
        if self.n == 0:
            return None
        return float(np.sqrt(max(0.0, self.squares / self.n - (self.total / self.n) ** 2)))

    @classmethod
    def of(cls, x: FloatArray) -> Moments:
        """Moments of the finite values of `x`."""
        finite = x[np.isfinite(x)]
        return cls(len(finite), float(finite.sum()), float(np.square(finite).sum()))


@dataclass(frozen=True)
class LabelReport:
    """How many bars have a label, and how the others differ.

    Attributes
    ----------
    rows:
        All bars; rows = kept + sum of dropped.
    kept:
        Bars with a label.
    dropped:
        Bars without one, by reason (`REASONS`).
    kept_returns:
        Moments of the labels, fractions.
    dropped_returns:
        Moments of the return that the dropped bars would have had to the last close in (t, t + h] of their
        session, however early it is; bars without any such close are not in it.
    """

    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    kept_returns: Moments = Moments()
    dropped_returns: Moments = Moments()

    def __add__(self, other: LabelReport) -> LabelReport:
        return LabelReport(
            self.rows + other.rows,
            self.kept + other.kept,
            {r: self.dropped[r] + other.dropped[r] for r in REASONS},
            self.kept_returns + other.kept_returns,
            self.dropped_returns + other.dropped_returns,
        )

    @classmethod
    def total(cls, reports: Iterable[LabelReport]) -> LabelReport:
        """Sum over partitions, in the given order."""
        return sum(reports, cls())

    def summary(self) -> dict[str, object]:
        """JSON values; standard deviations are fractions, None without a row."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": self.dropped,
            "kept_label_sd": self.kept_returns.sd,
            "dropped_label_sd": self.dropped_returns.sd,
            "dropped_with_a_close": self.dropped_returns.n,
        }


def label_columns(labels: LabelSettings) -> tuple[str, ...]:
    """Names of the label columns of a gold row, in order."""
    extra = (f"label_return_{h}" for h in labels.extra_horizons_minutes)
    return ("label_end_at", "label_return", *extra, "label_up", "label_class")


def label_bars(
    bars: pl.DataFrame, sessions: Sessions, labels: LabelSettings, *, bar_interval_minutes: int = 1
) -> pl.DataFrame:
    """Label every bar by what follows it in `bars`.

    Parameters
    ----------
    bars:
        Columns time (bar open, Datetime us UTC, strictly increasing) and close (positive); shape (n, ≥ 2).
        The last rows must reach one horizon beyond the bars whose labels matter.
    sessions:
        Sessions that cover the bars; a label never leaves its session.
    labels:
        Horizons, tolerance and class edges.
    bar_interval_minutes:
        Bar length; decision_at = time + bar interval.

    Returns
    -------
    DataFrame
        One row a bar: time, decision_at, session_open_at (null outside all sessions), close, label_end_at
        (end of the bar whose close ends the label), label_return (simple return, fraction),
        label_return_<h> for each extra horizon, label_up (1 where the return is positive), label_class
        (0 to 4, edges belong to the class below them), loose_return (return to the last close in
        (t, t + h] of the session, at any distance), reason (`REASONS`; null where there is a label).

    Raises
    ------
    DataError
        Times are not strictly increasing, or a close is null or not positive.
    """
    times, close = _checked(bars)
    session = sessions.locate(bars["time"])
    ends = times + bar_interval_minutes * _MINUTE_US
    last = _last_of_session(session)
    tolerance = labels.label_tolerance_minutes * _MINUTE_US
    horizon = labels.horizon_minutes * _MINUTE_US
    inside = session >= 0
    target = _target(ends, last, horizon)
    has_close = inside & (target > np.arange(len(ends)))
    kept = has_close & (ends[target] >= ends + horizon - tolerance)
    loose = np.where(has_close, close[target] / close - 1, np.nan)
    value = np.where(kept, loose, np.nan)
    closes_us = sessions.close_us[np.maximum(session, 0)] if len(sessions.close_us) else ends
    too_late = closes_us < ends + horizon - tolerance
    reason = np.select([kept, ~inside, too_late], [-1, 0, 1], default=2)
    opens_us = sessions.open_us[np.maximum(session, 0)] if len(sessions.open_us) else times
    extra = {}
    for minutes in labels.extra_horizons_minutes:
        at = _target(ends, last, minutes * _MINUTE_US)
        ok = inside & (at > np.arange(len(ends))) & (ends[at] >= ends + minutes * _MINUTE_US - tolerance)
        extra[f"label_return_{minutes}"] = np.where(ok, close[at] / close - 1, np.nan)
    frame = pl.DataFrame(
        {
            "time": bars["time"],
            "decision_at": utc_series("decision_at", ends),
            "session_open_at": utc_series("session_open_at", opens_us).set(pl.Series(~inside), None),
            "close": close,
            "label_end_at": utc_series("label_end_at", ends[target]).set(pl.Series(~kept), None),
            "label_return": value,
            **extra,
            "label_up": (value > 0).astype(np.int8),
            "label_class": np.searchsorted(np.asarray(labels.class_edges), value).astype(np.int8),
            "loose_return": loose,
            "reason": pl.Series([*REASONS, None], dtype=pl.String).gather(np.where(reason < 0, 3, reason)),
        }
    )
    labelled = pl.col("label_return").is_not_nan()
    return frame.with_columns(
        pl.when(labelled).then("label_up").alias("label_up"),
        pl.when(labelled).then("label_class").alias("label_class"),
        pl.col("label_return", *extra, "loose_return").fill_nan(None),
    )


def label_report(labelled: pl.DataFrame) -> LabelReport:
    """Count the rows of `label_bars` by reason, with the moments of both kinds of return."""
    kept = labelled["reason"].is_null()
    counts = dict(labelled["reason"].drop_nulls().value_counts().iter_rows())
    return LabelReport(
        labelled.height,
        int(kept.sum()),
        {r: int(counts.get(r, 0)) for r in REASONS},
        Moments.of(labelled.filter(kept)["label_return"].to_numpy()),
        Moments.of(labelled.filter(~kept)["loose_return"].drop_nulls().to_numpy()),
    )


def _checked(bars: pl.DataFrame) -> tuple[IntArray, FloatArray]:
    times = bars["time"].dt.cast_time_unit("us").to_physical().to_numpy()
    if len(times) > 1 and (step := np.diff(times)).min() <= 0:
        at = bars["time"][int(step.argmin()) + 1]
        msg = f"label_bars: time {at} does not follow its predecessor; required: strictly increasing times"
        raise DataError(msg, hint="run the ingest stage, which sorts bars and drops duplicates")
    close = bars["close"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if not (np.isfinite(close) & (close > 0)).all():
        msg = "label_bars: a close is null, not finite or not positive; required: positive closes"
        raise DataError(msg, hint="run the ingest stage, which quarantines such bars")
    return times, close


def _last_of_session(session: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Index of the last bar of each bar's run of equal sessions."""
    n = len(session)
    if n == 0:
        return np.empty(0, dtype=np.intp)
    is_last = np.append(session[1:] != session[:-1], True)
    last = np.flatnonzero(is_last)
    return last[np.searchsorted(last, np.arange(n))]


def _target(ends: IntArray, last: npt.NDArray[np.intp], horizon_us: int) -> npt.NDArray[np.intp]:
    """Index of the last bar that ends in (…, end + horizon] and lies in the same run as its bar."""
    return np.minimum(np.searchsorted(ends, ends + horizon_us, side="right") - 1, last)
