"""What trading on forecasts would have earned: fills at the next bar's open, costs, flat over session ends.

A decision at t is filled at the open of the first bar that starts at or after t in the same session; no
price that the forecast was made from is ever traded. The forecast is of the return over (t, t + horizon], so
its position is left at the first open at or after t + horizon, or at the session's last close.

Decisions come every bar and their horizons overlap. Position ``average`` gives every decision of the last
horizon an equal part of the capital (the overlapping portfolios of Jegadeesh and Titman 1993, Returns to
buying winners and selling losers, Journal of Finance 48); ``latest`` holds one unit in the direction of the
latest signal that is not older than a horizon. Neither ever exceeds one unit.

Prices are taken as mid prices: trading an amount costs half the spread, commission and slippage on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.dataset.rows import utc_series
from marketray.errors import DataError
from marketray.evaluation.prices import Prices
from marketray.evaluation.track import Track, figures
from marketray.sessions import month_sessions, trading_sessions

if TYPE_CHECKING:
    from marketray.settings import MarketSettings, Settings

__all__ = ["backtest_section", "buy_and_hold", "positions", "signals", "simulate", "trade"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MINUTE_US = 60_000_000
_CURVE_POINTS = 500
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class _Period:
    """One period's forecasts on the bars [first, stop) that they are traded on."""

    name: str
    decision_us: IntArray
    signal: IntArray
    filled: npt.NDArray[np.bool_]
    rows: slice
    strategy: Track
    buy_and_hold: Track
    flat: Track


def backtest_section(
    settings: Settings, bars: pl.DataFrame, forecasts: Mapping[str, tuple[IntArray, FloatArray]]
) -> dict[str, Any]:
    """The ``backtest`` section of the report.

    Parameters
    ----------
    settings:
        ``backtest``, the market's sessions, the label's horizon and task.
    bars:
        Columns time (bar open, Datetime UTC, strictly increasing), open, close, and bid and ask where the
        market has them; from the bar before the first decision to the first one after the last exit.
    forecasts:
        By period: decision times (int64 microseconds since the epoch, UTC, strictly increasing, (n,)) and
        forecasts (n,): returns as fractions, or P(up) − 0.5 for the direction task. Periods do not overlap.

    Returns
    -------
    dict
        JSON values. ``assumptions``; ``periods``: by name first_decision_at and last_decision_at, decisions,
        signals (forecasts beyond the threshold), unfilled (signals after which their session had no bar) and
        the figures (`marketray.evaluation.track.figures`) of ``strategy``, ``buy_and_hold`` (bought at the
        first fill, sold at the last, held over nights) and ``flat``; ``curve``: what one unit has become at
        session ends, over all periods in time order and out of the market between them, at most 500 points;
        ``stress``: the windows of the settings.

    Raises
    ------
    SettingsError
        Bars have no quotes and ``backtest.spread_bps`` is not set.
    DataError
        Bars or forecasts cannot be used, or periods overlap.
    """
    if not forecasts or not bars.height:
        msg = f"backtest: got {len(forecasts)} periods and {bars.height} bars; required: some of both"
        raise DataError(msg, hint="pass the forecasts of at least one split and the bars that follow them")
    sessions = month_sessions(settings.market, bars["time"][0].date(), bars["time"][-1].date())
    prices = Prices.of(bars, sessions, settings)
    periods = [_period(settings, prices, name, *forecasts[name]) for name in forecasts]
    periods.sort(key=lambda p: p.rows.start)
    for before, after in pairwise(periods):
        if after.rows.start < before.rows.stop:
            msg = f"backtest: {after.name} begins before the end of {before.name}; required: a horizon later"
            raise DataError(msg, hint="pass periods that follow each other")
    yearly = _sessions_per_year(
        settings.market, _EPOCH + timedelta(int(periods[-1].strategy.session_date[-1]))
    )
    return {
        "assumptions": _assumptions(settings, prices, periods, yearly),
        "periods": {p.name: _figures(p, yearly) for p in periods},
        "curve": _curve(prices, periods),
        "stress": _stress(settings, periods, yearly),
    }


def signals(settings: Settings, prices: Prices, decision_us: IntArray, prediction: FloatArray) -> IntArray:
    """−1, 0 or 1 for each forecast: its sign where its size reaches the threshold, shape (n,).

    The threshold in costs is that many round trips at the quotes of the last bar that ended by the decision.

    Raises
    ------
    DataError
        No bar ended by the first decision, so that its costs were not known.
    """
    rules = settings.backtest
    if settings.labels.task == "direction":
        threshold: float | FloatArray = rules.threshold_probability
    elif rules.threshold_return is not None:
        threshold = rules.threshold_return
    else:
        known = np.searchsorted(prices.end_us, decision_us, side="right") - 1
        if known[0] < 0:
            msg = "backtest: no bar ends by the first decision; required: the bar that it was made from"
            raise DataError(msg, hint="pass bars from one interval before the first decision")
        threshold = rules.threshold_costs * 2 * prices.cost[known]
    return np.where(np.abs(prediction) >= threshold, np.sign(prediction), 0).astype(np.int64)


def positions(
    prices: Prices,
    decision_us: IntArray,
    signal: IntArray,
    *,
    horizon_minutes: int,
    bar_interval_minutes: int,
    rule: Literal["average", "latest"],
) -> FloatArray:
    """Position from each bar's open to the next fill, units of capital in [−1, 1], shape (bars,).

    At a bar that starts at s the decisions of (s − horizon, s] count, as far as they were made in the span
    over which positions are carried.

    Parameters
    ----------
    decision_us, signal:
        Decision times, increasing, and −1, 0 or 1, shape (n,).
    horizon_minutes, bar_interval_minutes:
        ``average`` gives each decision the part interval / horizon of the capital.
    """
    since = np.maximum(prices.time_us - horizon_minutes * _MINUTE_US, prices.opened_us)
    low = np.searchsorted(decision_us, since, side="right")
    high = np.searchsorted(decision_us, prices.time_us, side="right")
    if rule == "average":
        total = np.concatenate([[0], np.cumsum(signal)])
        balance = total[np.maximum(high, low)] - total[low]
        return np.asarray(balance * (bar_interval_minutes / horizon_minutes), dtype=np.float64)
    given = np.where(signal != 0, np.arange(1, len(signal) + 1), 0)
    latest = np.concatenate([[0], np.maximum.accumulate(given)])[high]
    return np.where(latest > low, signal[np.maximum(latest - 1, 0)], 0).astype(np.float64)


def trade(prices: Prices, rows: slice, position: FloatArray) -> Track:
    """The record of holding `position` (bars,) over the bars of `rows`, flat before and after."""
    held, carried = position[rows], prices.carried[rows]
    before = np.concatenate([[0.0], np.where(carried, held, 0.0)[:-1]])
    after = np.append(np.where(carried[:-1], held[1:], 0.0), 0.0)
    entered, left = _part_of(held, before), _part_of(held, after)
    return Track(
        session_date=prices.session_date[rows],
        position=held,
        trade=np.cumsum(np.sign(held) != np.sign(before)),
        gross=held * (prices.until[rows] / prices.fill[rows] - 1),
        traded=entered + left,
        cost=entered * prices.cost[rows] + left * prices.leaving_cost[rows],
    )


def _part_of(held: FloatArray, neighbour: FloatArray) -> FloatArray:
    """How much of `held` is not already there in its neighbour; all of it where the sign differs."""
    more = np.maximum(np.abs(held) - np.abs(neighbour), 0.0)
    return np.where(np.sign(held) == np.sign(neighbour), more, np.abs(held))


def buy_and_hold(prices: Prices, rows: slice) -> Track:
    """The record of one purchase at the first fill of `rows`, held over nights and sold at the end."""
    dates, until = prices.session_date[rows], prices.until[rows]
    n = len(dates)
    before = np.concatenate([[prices.fill[rows.start]], until[:-1]])
    first = np.flatnonzero(np.diff(dates, prepend=-1))
    capital = np.repeat(before[first], np.diff(np.append(first, n)))
    traded, cost = np.zeros(n), np.zeros(n)
    for row, price in ((0, prices.cost[rows][0]), (n - 1, prices.leaving_cost[rows][-1])):
        traded[row] += 1.0
        cost[row] += price
    return Track(dates, np.ones(n), np.zeros(n, dtype=np.int64), (until - before) / capital, traded, cost)


def simulate(
    settings: Settings, prices: Prices, name: str, decision_us: IntArray, prediction: FloatArray
) -> tuple[slice, IntArray, Track]:
    """Trade one period's forecasts: the bars they are traded on, their signals, and the record.

    Parameters
    ----------
    name:
        Of the period, for messages.
    decision_us, prediction:
        As in `backtest_section`.

    Raises
    ------
    DataError
        The forecasts cannot be used, or no bar follows them.
    """
    decisions, forecast = np.asarray(decision_us, np.int64), np.asarray(prediction, np.float64)
    if decisions.ndim != 1 or decisions.shape != forecast.shape or not len(decisions):
        shapes = f"{decisions.shape} decisions and {forecast.shape} forecasts"
        msg = f"backtest: {name} has {shapes}; required: one shape (n,)"
        raise DataError(msg, hint="pass one decision time a forecast")
    if not np.isfinite(forecast).all() or (np.diff(decisions) <= 0).any():
        msg = f"backtest: {name}: required: finite forecasts at strictly increasing decision times"
        raise DataError(msg, hint="sort the rows and drop those without a forecast")
    horizon = settings.labels.horizon_minutes
    until = decisions[-1] + horizon * _MINUTE_US
    rows = slice(*(int(i) for i in np.searchsorted(prices.time_us, [decisions[0], until])))
    if rows.stop <= rows.start:
        msg = f"backtest: no bar follows the decisions of {name} within a horizon; required: bars to trade on"
        raise DataError(msg, hint="pass the bars of the same time as the forecasts")
    signal = signals(settings, prices, decisions, forecast)
    position = positions(
        prices,
        decisions,
        signal,
        horizon_minutes=horizon,
        bar_interval_minutes=settings.bar_interval_minutes,
        rule=settings.backtest.position,
    )
    return rows, signal, trade(prices, rows, position)


def _period(
    settings: Settings, prices: Prices, name: str, decision_us: IntArray, prediction: FloatArray
) -> _Period:
    rows, signal, strategy = simulate(settings, prices, name, decision_us, prediction)
    horizon = settings.labels.horizon_minutes * _MINUTE_US
    at = np.minimum(np.searchsorted(prices.time_us, decision_us), len(prices) - 1)
    filled = (prices.time_us[at] >= decision_us) & (prices.time_us[at] < decision_us + horizon)
    filled &= prices.opened_us[at] < decision_us
    flat = trade(prices, rows, np.zeros(len(prices)))
    return _Period(name, decision_us, signal, filled, rows, strategy, buy_and_hold(prices, rows), flat)


def _figures(period: _Period, sessions_per_year: float) -> dict[str, Any]:
    first, last = _iso(period.decision_us[[0, -1]])
    return {
        "first_decision_at": first,
        "last_decision_at": last,
        "decisions": len(period.decision_us),
        "signals": int(np.count_nonzero(period.signal)),
        "unfilled": int(np.count_nonzero((period.signal != 0) & ~period.filled)),
        **{
            name: figures(getattr(period, name), sessions_per_year)
            for name in ("strategy", "buy_and_hold", "flat")
        },
    }


def _assumptions(
    settings: Settings, prices: Prices, periods: Sequence[_Period], sessions_per_year: float
) -> dict[str, Any]:
    rules, labels = settings.backtest, settings.labels
    if labels.task == "direction":
        threshold = {"unit": "probability", "value": rules.threshold_probability}
    elif rules.threshold_return is not None:
        threshold = {"unit": "return", "value": rules.threshold_return}
    else:
        threshold = {"unit": "round-trip costs", "value": rules.threshold_costs}
    one_way = np.concatenate([prices.cost[p.rows] for p in periods])
    return {
        "fill": "open of the first bar at or after the decision, in its session",
        "exit": "first open at or after decision + horizon, or the session's last close",
        "spread_bps": rules.spread_bps,
        "commission_bps": rules.commission_bps,
        "slippage_bps": rules.slippage_bps,
        "mean_cost_bps": 1e4 * float(one_way.mean()),
        "threshold": threshold,
        "position": rules.position,
        "hold_over_breaks": rules.hold_over_breaks,
        "horizon_minutes": labels.horizon_minutes,
        "sessions_per_year": sessions_per_year,
        "sharpe": "sessions' net returns, no risk-free rate; 95 % interval of Lo (2002)",
    }


def _curve(prices: Prices, periods: Sequence[_Period]) -> list[dict[str, Any]]:
    tracks = {
        name: Track.joined([getattr(p, name) for p in periods]) for name in ("strategy", "buy_and_hold")
    }
    ends = np.concatenate([prices.end_us[p.rows] for p in periods])
    last = np.append(tracks["strategy"].first_of_session[1:], len(ends)) - 1
    shown = np.unique(np.linspace(0, len(last) - 1, min(len(last), _CURVE_POINTS)).round().astype(np.int64))
    values = {name: track.session_growth[shown].tolist() for name, track in tracks.items()}
    at = _iso(ends[last[shown]])
    return [
        {"at": moment, **{name: value[i] for name, value in values.items()}} for i, moment in enumerate(at)
    ]


def _stress(settings: Settings, periods: Sequence[_Period], sessions_per_year: float) -> list[dict[str, Any]]:
    """Figures of the sessions in each window; None, with the reason, where no forecast falls into it."""
    names = ("strategy", "buy_and_hold")
    tracks = {name: Track.joined([getattr(p, name) for p in periods]) for name in names}
    dates = tracks["strategy"].session_date
    found = []
    for window in settings.backtest.stress:
        inside = (dates >= (window.first - _EPOCH).days) & (dates <= (window.last - _EPOCH).days)
        head = {"name": window.name, "first": window.first.isoformat(), "last": window.last.isoformat()}
        keys = ("return_pct", "max_drawdown_pct", "sharpe", "trades", "exposure", "cost_pct")
        values: dict[str, Any] = {f"{name}_{key}": None for name in names for key in keys}
        if inside.any():
            for name in names:
                of = figures(tracks[name].take(inside), sessions_per_year)
                values |= {f"{name}_{key}": of[key] for key in keys}
        reason = None if inside.any() else "no forecast was made in these sessions"
        found.append({**head, "sessions": len(np.unique(dates[inside])), **values, "reason": reason})
    return found


def _sessions_per_year(market: MarketSettings, last: date) -> float:
    """Sessions of the calendar in the 365 days up to `last`."""
    first = last - timedelta(days=364)
    frame = trading_sessions(market.calendar, first, last).frame
    return float(frame.filter(pl.col("session_date").is_between(first, last))["session_date"].n_unique())


def _iso(us: IntArray) -> list[str]:
    return [moment.isoformat() for moment in utc_series("at", us)]
