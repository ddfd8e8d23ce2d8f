"""The planted effect: how order flow and news move the price over the next 30 minutes.

Every in-session minute s may carry an impulse I_s, known at the end of that minute and of mean zero.
Half an hour long it adds to the drift between bars, ``drift_s = sum_{k=1..30} I_{s-k}``, so the best
forecast is known exactly (`remaining_drift`), and the impulse's size follows from the share of the
label's variance that is to be planted (`plant`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marketray.errors import SettingsError

__all__ = [
    "HORIZON_MINUTES",
    "Moments",
    "PlantedSize",
    "drift",
    "plant",
    "remaining_drift",
    "session_moments",
]

HORIZON_MINUTES = 30
"""Minutes over which an impulse acts, and the horizon of the oracle."""

_MAX_FLOW, _MIN_REST = 2.0, 0.04  # beyond these the effects are so large that returns cease to be small

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


def drift(impulse: Float64Array) -> Float64Array:
    """Drift of each minute, the sum of the 30 impulses before it, shape (n,), as a return.

    Sessions must be separated by at least 30 minutes of padding, or impulses leak into the next one.
    """
    total = np.concatenate([np.zeros(HORIZON_MINUTES + 1), np.cumsum(impulse)])
    return np.asarray(total[HORIZON_MINUTES:-1] - total[: -HORIZON_MINUTES - 1])


def remaining_drift(impulse: Float64Array, minutes_left: Int64Array, present: float) -> Float64Array:
    """Exact expectation of the return over (t, t + 30 min] at the end of each minute t.

    The part of the drift that is already decided, ``present * sum_{i=0..29} min(30 - i, m) I_{t-i}``.

    Parameters
    ----------
    impulse:
        Impulses on the minute grid, shape (n,), sessions separated by 30 minutes of padding.
    minutes_left:
        m, the minutes that follow t in its session; below 30 the session's end cuts the forecast.
    present:
        Probability that a minute has a bar; a minute without one does not move the price.
    """
    n, h = len(impulse), HORIZON_MINUTES
    full = np.convolve(impulse, np.arange(h, 0, -1, dtype=np.float64))[:n]
    total = np.concatenate([np.zeros(h + 1), np.cumsum(impulse)])
    tail = np.flatnonzero((minutes_left >= 0) & (minutes_left < h))
    left = minutes_left[tail]
    for j in range(1, h + 1):  # drift of minute t + j that is known at t, where t + j is past the end
        known = total[tail + h + 1] - total[tail + j]
        full[tail] -= np.where(left < j, known, 0.0)
    return np.asarray(present * full)


@dataclass(frozen=True)
class Moments:
    """Variance of the 30-minute return, summed over decisions, as a polynomial of the effects' sizes.

    ``market known * w^2 + (flow2 * w^2 + flow1 * w + flow0) + (news_known + news_unknown) * J^2``
    """

    known: float = 0.0
    flow2: float = 0.0
    flow1: float = 0.0
    flow0: float = 0.0
    news_known: float = 0.0
    news_unknown: float = 0.0

    def add(self, other: Moments, times: int) -> Moments:
        """These moments plus `times` those of `other`."""
        names = self.__dataclass_fields__
        return Moments(**{k: getattr(self, k) + times * getattr(other, k) for k in names})


def session_moments(
    flow_variance: Float64Array, news_variance: Float64Array, before_open: float, present: float
) -> Moments:
    """Moments of one session, over all its decisions with 30 minutes left.

    Parameters
    ----------
    flow_variance, news_variance:
        Expected squared body of a bar, and expected sum of squared news impulses at J = 1, of each
        minute of the session, shape (n,).
    before_open:
        The latter for each of the 30 minutes before the open.
    present:
        Probability that a minute has a bar.
    """
    h, absent = HORIZON_MINUTES, 1.0 - present
    if len(flow_variance) <= h:
        return Moments()
    flow = _window_sums(np.concatenate([np.zeros(h - 1), flow_variance]))
    news = _window_sums(np.concatenate([np.full(h - 1, before_open), news_variance]))
    flow[h - 1] /= present  # a decision is made at a bar that exists
    past, future = np.arange(1.0, h + 1), np.arange(h - 1.0, -1.0, -1.0)  # minutes each impulse still acts
    sure_past, sure_future = (present * past) ** 2, (present * future) ** 2
    luck_past, luck_future = (present * absent * k for k in (past, future))  # which minutes have bars
    return Moments(
        known=float(sure_past @ flow[:h]),
        flow2=float(luck_past @ flow[:h] + (sure_future + luck_future) @ flow[h:]),
        flow1=float(2 * present * future @ flow[h:]),
        flow0=float(flow[h:].sum()),
        news_known=float(sure_past @ news[:h]),
        news_unknown=float(luck_past @ news[:h] + (sure_future + luck_future) @ news[h:]),
    )


def _window_sums(padded: Float64Array) -> Float64Array:
    """Sum over decisions t of the value at t - 29 … t + 30, shape (60,)."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * HORIZON_MINUTES).sum(axis=0))


@dataclass(frozen=True)
class PlantedSize:
    """Sizes of the effects.

    Attributes
    ----------
    flow:
        w: drift a minute per unit of a past bar's body.
    news:
        J: total drift of an article, in units of the volatility scale when it became known.
    """

    flow: float
    news: float


def plant(moments: Moments, market_r2: float, news_r2: float) -> PlantedSize:
    """Sizes for which the oracles explain the given shares of the label's variance.

    With T the label's variance: J^2 news_known = news_r2 T and w^2 known = market_r2 T, where T also
    holds what future order flow and future articles add. The first gives J, the second a quadratic in w.

    Raises
    ------
    SettingsError
        No size reaches these shares: the news and order flow that are still to come move the label too.
    """
    news_factor = 1.0 + moments.news_unknown / moments.news_known
    rest = 1.0 - news_r2 * news_factor  # of T, for order flow
    largest = moments.known * _MAX_FLOW**2
    limit = largest / (largest + _flow_variance(moments, _MAX_FLOW))
    if rest < _MIN_REST or market_r2 > limit * rest:
        msg = (
            f"source: got market_r2={market_r2:g} and news_r2={news_r2:g}; required: "
            f"news_r2 <= {(1 - _MIN_REST) / news_factor:.3f} and "
            f"market_r2 <= {limit:.3f} * (1 - {news_factor:.2f} * news_r2), "
            "since order flow and news that are still to come move the label too"
        )
        raise SettingsError(msg, hint="lower source.market_r2 or source.news_r2, or set source.effect")
    share = market_r2 / rest
    a = moments.known * (1 - share) - share * moments.flow2
    b, c = share * moments.flow1, share * moments.flow0
    flow = (b + np.sqrt(b * b + 4 * a * c)) / (2 * a) if market_r2 else 0.0
    total = (moments.known * flow**2 + _flow_variance(moments, flow)) / rest
    news = np.sqrt(news_r2 * total / moments.news_known) if news_r2 else 0.0
    return PlantedSize(flow=float(flow), news=float(news))


def _flow_variance(moments: Moments, flow: float) -> float:
    return moments.flow2 * flow**2 + moments.flow1 * flow + moments.flow0
