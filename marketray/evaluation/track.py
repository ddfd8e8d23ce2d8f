"""What a position earned bar by bar, and the figures of such a record: return, Sharpe ratio, drawdown, costs.

Inside a session gains add up, in units of the capital at the session's start; from session to session they
compound. Returns are fractions; names that end in ``_pct`` or ``_bps`` say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = ["MIN_SESSIONS", "Track", "figures", "sharpe_interval"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_SESSIONS = 20
"""Below this many sessions nothing is annualised and no Sharpe ratio is stated."""


@dataclass(frozen=True)
class Track:
    """A position's record, one entry a bar in time order, each of shape (n,).

    Attributes
    ----------
    session_date:
        The calendar's label of the bar's session, days since the epoch.
    position:
        Held from the bar's fill to the next one, in units of capital; negative: short.
    trade:
        Number of the trade that the position belongs to; of no meaning where it is 0.
    gross:
        What the position earned from the bar's fill to the next one.
    traded:
        What was bought or sold to enter the position at the bar's fill and to leave it at the next one.
    cost:
        What that cost.
    """

    session_date: IntArray
    position: FloatArray
    trade: IntArray
    gross: FloatArray
    traded: FloatArray
    cost: FloatArray

    def take(self, rows: npt.NDArray[np.bool_] | slice) -> Track:
        """The bars that a mask or a slice picks."""
        return Track(
            self.session_date[rows],
            self.position[rows],
            self.trade[rows],
            self.gross[rows],
            self.traded[rows],
            self.cost[rows],
        )

    @classmethod
    def joined(cls, tracks: Sequence[Track]) -> Track:
        """Records that follow each other as one."""
        shift = np.cumsum([0, *(int(t.trade[-1]) + 1 for t in tracks[:-1])])
        numbers = [t.trade + k for t, k in zip(tracks, shift, strict=True)]
        return cls(
            np.concatenate([t.session_date for t in tracks]),
            np.concatenate([t.position for t in tracks]),
            np.concatenate(numbers),
            np.concatenate([t.gross for t in tracks]),
            np.concatenate([t.traded for t in tracks]),
            np.concatenate([t.cost for t in tracks]),
        )

    @cached_property
    def net(self) -> FloatArray:
        """Gains after costs, shape (n,)."""
        return self.gross - self.cost

    @cached_property
    def first_of_session(self) -> npt.NDArray[np.intp]:
        """Position of every session's first bar."""
        return np.flatnonzero(np.diff(self.session_date, prepend=-1))

    @cached_property
    def session_returns(self) -> FloatArray:
        """Net gain of each session with bars, in units of its opening capital."""
        if not len(self.net):
            return np.empty(0)
        return np.asarray(np.add.reduceat(self.net, self.first_of_session), dtype=np.float64)

    @cached_property
    def session_growth(self) -> FloatArray:
        """Capital at the end of each session that one unit has become; a ruined account stays at 0."""
        return np.asarray(np.cumprod(np.maximum(1 + self.session_returns, 0)), dtype=np.float64)

    @property
    def growth(self) -> FloatArray:
        """Capital after every bar that one unit has become, shape (n,)."""
        first = self.first_of_session
        sizes = np.diff(np.append(first, len(self.net)))
        opening = np.concatenate([[1.0], self.session_growth[:-1]])
        total = np.cumsum(self.net)
        before = total[first] - self.net[first]
        return np.maximum(np.repeat(opening, sizes) * (1 + total - np.repeat(before, sizes)), 0)


def figures(track: Track, sessions_per_year: float) -> dict[str, Any]:
    """Figures of a record.

    Parameters
    ----------
    track:
        At least one bar.
    sessions_per_year:
        For annual figures.

    Returns
    -------
    dict
        return_pct and annual_return_pct (compounded over sessions), sharpe with sharpe_low and sharpe_high
        (annual, see `sharpe_interval`), max_drawdown_pct (largest fall from a peak, bar by bar, positive),
        win_rate (share of trades that earned more than they cost), trades, turnover (traded a session, in
        units of capital, both ways), exposure (mean size of the position over the bars), cost_pct and
        gross_pct (sums over all sessions), break_even_cost_bps (cost of a trade, one way, at which nothing
        would be left), sessions, and reason: why a figure is None, or None.

        A trade is an uninterrupted spell of a position of one sign.
    """
    sessions, traded = len(track.session_returns), float(track.traded.sum())
    final = float(track.session_growth[-1])
    sharpe, low, high, reason = _sharpe(track.session_returns, sessions_per_year)
    gains = _trades(track)
    long_enough = sessions >= MIN_SESSIONS
    return {
        "return_pct": 100 * (final - 1),
        "annual_return_pct": 100 * (final ** (sessions_per_year / sessions) - 1) if long_enough else None,
        "sharpe": sharpe,
        "sharpe_low": low,
        "sharpe_high": high,
        "max_drawdown_pct": 100 * _max_drawdown(track.growth),
        "win_rate": float(np.mean(gains > 0)) if len(gains) else None,
        "trades": len(gains),
        "turnover": traded / sessions,
        "exposure": float(np.mean(np.abs(track.position))),
        "gross_pct": 100 * float(track.gross.sum()),
        "cost_pct": 100 * float(track.cost.sum()),
        "break_even_cost_bps": 1e4 * float(track.gross.sum()) / traded if traded else None,
        "sessions": sessions,
        "reason": "there was no trade" if not traded else reason,
    }


def sharpe_interval(
    returns: npt.ArrayLike, periods_per_year: float, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Annual Sharpe ratio, mean / standard deviation · √periods, with an interval that trusts no normality.

    The ratio's variance is the long-run variance of its influence function
    (x − μ)/σ − μ((x − μ)² − σ²)/(2σ³), Bartlett weights up to lag ⌊4 (n/100)^(2/9)⌋: returns may be
    skewed, fat-tailed and correlated over a few periods. The factor √periods assumes little correlation.

    Parameters
    ----------
    returns:
        One return a period over the risk-free rate, fractions, shape (n,).
    periods_per_year:
        For the annual figure.
    level:
        Of the interval.

    Returns
    -------
    tuple
        (sharpe, low, high).

    Raises
    ------
    DataError
        Fewer than two returns, a value that is not finite, or no variation.

    References
    ----------
    Lo (2002), The statistics of Sharpe ratios, Financial Analysts Journal 58, equations 13 to 16. Newey and
    West (1994), Automatic lag selection in covariance matrix estimation, RES 61.
    """
    from scipy.stats import norm

    x = np.asarray(returns, dtype=np.float64)
    n = len(x)
    usable = n > 1 and bool(np.isfinite(x).all())
    deviation = float(np.std(x, ddof=1)) if usable else 0.0
    if not usable or deviation <= 1e-12 * float(np.max(np.abs(x))):
        msg = f"sharpe_interval: got {n} returns; required: two or more finite ones that vary"
        raise DataError(msg, hint="use a longer period, or a strategy that trades")
    ratio = float(x.mean()) / deviation
    z = (x - x.mean()) / deviation
    influence = z - ratio / 2 * (z**2 - np.mean(z**2))
    lags = int(4 * (n / 100) ** (2 / 9))
    weights = 2 * (1 - np.arange(1, lags + 1) / (lags + 1))
    covariances = [float(influence[k:] @ influence[:-k]) for k in range(1, min(lags, n - 1) + 1)]
    variance = (float(influence @ influence) + float(weights[: len(covariances)] @ np.array(covariances))) / n
    half = float(norm.ppf(0.5 + level / 2)) * float(np.sqrt(max(variance, 0.0) / n))
    scale = float(np.sqrt(periods_per_year))
    return scale * ratio, scale * (ratio - half), scale * (ratio + half)


def _sharpe(
    returns: FloatArray, sessions_per_year: float
) -> tuple[float | None, float | None, float | None, str | None]:
    if len(returns) < MIN_SESSIONS:
        return None, None, None, f"{len(returns)} sessions; annual figures need {MIN_SESSIONS}"
    if np.ptp(returns) <= 1e-12 * float(np.max(np.abs(returns))):
        return None, None, None, "every session earned the same"
    return *sharpe_interval(returns, sessions_per_year), None


def _max_drawdown(growth: FloatArray) -> float:
    """Largest fall from an earlier peak, a fraction of that peak; the start counts as a peak of 1."""
    peak = np.maximum.accumulate(np.maximum(growth, 1.0))
    return float(np.max(1 - growth / peak))


def _trades(track: Track) -> FloatArray:
    """Net gain of every trade, in order."""
    held = track.position != 0
    _, trade = np.unique(track.trade[held], return_inverse=True)
    return np.asarray(np.bincount(trade, weights=track.net[held]), dtype=np.float64)
