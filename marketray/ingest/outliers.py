"""Outliers are flagged; only a spike that the next bar takes back is refused. All measures trail.

The scale of bar i is σ_i = √(s · l_i): `s` is the typical squared log return at this time of the session,
an exponentially weighted mean over earlier sessions (weight 1/10, 15-minute buckets since the session's
open, ready after 5 sessions; until then the mean over all bars before i), and `l_i` is the mean of the 60
returns before i, squared and divided by their own s (cut at 100, and l_i at least 1/4, so that a still
night does not make every tick an outlier). The mean over all bars and `l_i` need 30 values each, so that
the first 60 returns of a source are not judged. Returns do not reach over the edges of sessions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.ingest.coverage import SessionIndex

__all__ = ["OutlierCheck", "TrailingScale"]

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]

_BUCKET_US = 15 * 60_000_000
_BUCKETS = 7 * 24 * 4
_WINDOW = 60
_MIN_RETURNS = 30
_READY_SESSIONS = 5
_SEASON_WEIGHT = 0.1
_MAX_SQUARE = 100.0
_MIN_LEVEL = 0.25


class TrailingScale:
    """The scale of returns, from what came before; see the module's text for the formula."""

    def __init__(self) -> None:
        self._season: Float64Array = np.zeros(_BUCKETS)
        self._sessions: Int64Array = np.zeros(_BUCKETS, np.int64)
        self._sum, self._count = 0.0, 0
        self._tail: Float64Array = np.empty(0)

    def sigma(self, bucket: Int64Array, squares: Float64Array) -> Float64Array:
        """σ of each bar of one session, shape (n,); NaN where it cannot be known yet.

        Parameters
        ----------
        bucket:
            15-minute bucket of each bar since the session's open.
        squares:
            Squared log returns, NaN for the session's first bar.
        """
        scale, relative = self._scale(bucket, squares), None
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.minimum(squares / scale, _MAX_SQUARE)
        known = np.isfinite(relative)
        values = np.concatenate([self._tail, relative[known]])
        sums = np.concatenate([[0.0], np.cumsum(values)])
        end = len(self._tail) + np.cumsum(known) - known  # how many values lie before each bar
        start = np.maximum(end - _WINDOW, 0)
        enough = end - start >= _MIN_RETURNS
        level = np.where(enough, (sums[end] - sums[start]) / np.maximum(end - start, 1), np.nan)
        sigma: Float64Array = np.sqrt(np.where(scale > 0, scale, np.nan) * np.maximum(level, _MIN_LEVEL))
        return sigma

    def learn(self, bucket: Int64Array, squares: Float64Array) -> None:
        """Take in a finished session."""
        scale = self._scale(bucket, squares)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.minimum(squares / scale, _MAX_SQUARE)
        self._tail = np.concatenate([self._tail, relative[np.isfinite(relative)]])[-_WINDOW:]
        seen = np.isfinite(squares)
        cut = np.where(scale > 0, np.minimum(squares, _MAX_SQUARE * scale), squares)[seen]
        self._sum += float(squares[seen].sum())
        self._count += int(seen.sum())
        number = np.bincount(bucket[seen], minlength=_BUCKETS)
        mean = np.bincount(bucket[seen], weights=cut, minlength=_BUCKETS) / np.maximum(number, 1)
        touched = number > 0
        self._sessions += touched
        weight = np.maximum(1.0 / np.maximum(self._sessions, 1), _SEASON_WEIGHT)
        self._season = np.where(touched, self._season + weight * (mean - self._season), self._season)

    def _scale(self, bucket: Int64Array, squares: Float64Array) -> Float64Array:
        seen = np.isfinite(squares)
        running = np.concatenate([[0.0], np.cumsum(np.where(seen, squares, 0.0))[:-1]]) + self._sum
        count = np.concatenate([[0], np.cumsum(seen)[:-1]]) + self._count
        overall = np.where(count >= _MIN_RETURNS, running / np.maximum(count, 1), np.nan)
        return np.where(self._sessions[bucket] >= _READY_SESSIONS, self._season[bucket], overall)


class OutlierCheck:
    """Flags outliers and refuses reverting spikes, session by session, over any number of chunks.

    A bar is an outlier where its close, high or low lies more than `outlier_sigma` σ (in logs) from the
    close before it. It is a `spike` where its close lies at least `spike_sigma` σ away and the next bar of
    the session takes back at least `spike_reversal` of that; the bar after it is then measured from the
    close before the spike. The last bar of a session or of the data has no next bar and is kept.
    """

    def __init__(
        self, sessions: SessionIndex, *, outlier_sigma: float, spike_sigma: float, spike_reversal: float
    ) -> None:
        self._sessions = sessions
        self._outlier, self._spike, self._reversal = outlier_sigma, spike_sigma, spike_reversal
        self._scale = TrailingScale()
        self._pending: pl.DataFrame | None = None

    def push(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Kept rows with `outlier`, and spikes with `reason`; the last session waits for the next call."""
        if self._pending is not None:
            frame = pl.concat([self._pending, frame], how="diagonal")
        opens = self._sessions.locate(frame["time"].to_physical().to_numpy())
        count = len(frame)
        if count and opens[-1] >= 0:
            others = np.flatnonzero(opens != opens[-1])
            count = int(others[-1]) + 1 if len(others) else 0
        self._pending = frame[count:]
        return self._judge(frame[:count], opens[:count])

    def flush(self) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """The session that still waited, at the end of the data; None where there was none."""
        frame, self._pending = self._pending, None
        if frame is None:
            return None
        return self._judge(frame, self._sessions.locate(frame["time"].to_physical().to_numpy()))

    def _judge(self, frame: pl.DataFrame, opens: Int64Array) -> tuple[pl.DataFrame, pl.DataFrame]:
        outlier, spike = np.zeros(len(frame), bool), np.zeros(len(frame), bool)
        bucket = np.minimum((frame["time"].to_physical().to_numpy() - opens) // _BUCKET_US, _BUCKETS - 1)
        close, high, low = (np.log(frame[name].to_numpy()) for name in ("close", "high", "low"))
        edges = np.flatnonzero(np.diff(opens, prepend=-2, append=-2)).tolist() if len(frame) else []
        for start, end in pairwise(edges):
            part = slice(start, end)
            if opens[start] >= 0:
                outlier[part], spike[part] = self._judge_session(
                    bucket[part], close[part], high[part], low[part]
                )
        frame = frame.with_columns(outlier=pl.Series(outlier, dtype=pl.Boolean))
        spikes = frame.filter(pl.Series(spike, dtype=pl.Boolean))
        return (
            frame.filter(pl.Series(~spike, dtype=pl.Boolean)),
            spikes.with_columns(reason=pl.lit("spike", pl.String)),
        )

    def _judge_session(
        self, bucket: Int64Array, close: Float64Array, high: Float64Array, low: Float64Array
    ) -> tuple[BoolArray, BoolArray]:
        index, spike = np.arange(len(close)), np.zeros(len(close), bool)
        while True:
            returns = np.diff(close[index], prepend=np.nan)
            sigma = self._scale.sigma(bucket[index], returns**2)
            far = (np.abs(returns) >= self._spike * sigma)[:-1]
            back = (returns[1:] * returns[:-1] < 0) & (
                np.abs(returns[1:]) >= self._reversal * np.abs(returns[:-1])
            )
            found = np.flatnonzero(far & back)
            if not len(found):
                break
            spike[index[found[0]]] = True
            index = np.delete(index, found[0])
        before = np.concatenate([[np.nan], close[index][:-1]])
        away = np.maximum(np.maximum(np.abs(returns), high[index] - before), before - low[index])
        outlier = np.zeros(len(close), bool)
        outlier[index] = away > self._outlier * sigma
        self._scale.learn(bucket[index], returns**2)
        return outlier, spike
