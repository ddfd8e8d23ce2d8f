"""Bars as a backtest needs them: prices at which decisions are filled, and what a trade costs there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.bars import QUOTES
from marketray.dataset.plan import BARS
from marketray.dataset.rows import utc_series
from marketray.errors import DataError, LakeError, SettingsError
from marketray.lake import Lake
from marketray.sessions import Sessions

if TYPE_CHECKING:
    from marketray.settings import BacktestSettings, Settings

__all__ = ["Prices", "missing_costs", "read_bars", "require_costs", "spread"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Prices:
    """Bars in sessions with what it costs to trade at them, each of shape (n,).

    Attributes
    ----------
    time_us, end_us:
        Bar opens and ends, microseconds since the epoch, UTC, strictly increasing.
    fill:
        Price at which a decision made by the bar's start is filled: its open.
    until:
        Price at the end of holding from this fill: the next bar's open, or the bar's own close where a
        position must not be carried to the next bar.
    cost, leaving_cost:
        Of trading one unit at `fill` and at `until`, fractions.
    carried:
        Whether a position may be carried to the next bar.
    opened_us:
        Start of the span over which positions are carried: decisions up to it cannot be filled at this bar.
    session_date:
        The calendar's label of the bar's session, days since the epoch.
    """

    time_us: IntArray
    end_us: IntArray
    fill: FloatArray
    until: FloatArray
    cost: FloatArray
    leaving_cost: FloatArray
    carried: npt.NDArray[np.bool_]
    opened_us: IntArray
    session_date: IntArray

    def __len__(self) -> int:
        return len(self.time_us)

    @classmethod
    def of(cls, bars: pl.DataFrame, sessions: Sessions, settings: Settings) -> Prices:
        """The bars that lie in a session, priced by ``settings.backtest``.

        Parameters
        ----------
        bars:
            Columns time (bar open, Datetime UTC, strictly increasing), open and close (positive), and bid
            and ask where the market has them; shape (n, ≥ 3).
        sessions:
            Sessions that cover the bars.

        Raises
        ------
        DataError
            Times do not increase, a price is not positive, or no bar lies in a session.
        SettingsError
            Bars have no quotes and ``spread_bps`` is not set.
        """
        rules, interval = settings.backtest, settings.bar_interval_minutes
        _check(bars)
        require_costs(settings, bars)
        session = sessions.locate(bars["time"], interval)
        bars, session = bars.filter(pl.Series(session >= 0)), session[session >= 0]
        if not len(session):
            msg = f"backtest: no bar lies in a session of market.calendar={settings.market.calendar!r}"
            raise DataError(msg, hint="check market.calendar and the bars' times")
        times = bars["time"].dt.cast_time_unit("us").to_physical().to_numpy()
        opens, closes = (bars[name].cast(pl.Float64).to_numpy() for name in ("open", "close"))
        carried, opened = np.append(np.diff(session) == 0, False), sessions.open_us[session]
        if rules.hold_over_breaks:
            carried, opened = np.arange(len(times)) < len(times) - 1, np.full(len(times), times[0] - 1)
        cost = spread(bars, rules) / 2 + (rules.commission_bps + rules.slippage_bps) / 1e4
        dates = sessions.frame["session_date"].to_physical().to_numpy().astype(np.int64)
        return cls(
            time_us=times,
            end_us=times + interval * _MINUTE_US,
            fill=opens,
            until=np.where(carried, np.roll(opens, -1), closes),
            cost=cost,
            leaving_cost=np.where(carried, np.roll(cost, -1), cost),
            carried=carried,
            opened_us=opened,
            session_date=dates[session],
        )


def spread(bars: pl.DataFrame, rules: BacktestSettings) -> FloatArray:
    """(ask − bid) / mid at each bar's end, a fraction; `spread_bps` where a bar has no quotes, else NaN.

    A fill at a bar's open takes the quotes at that bar's end: the first that come after the decision.
    """
    usual = np.nan if rules.spread_bps is None else rules.spread_bps / 1e4
    if not set(QUOTES) <= set(bars.columns):
        return np.full(bars.height, usual)
    bid, ask = (bars[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in QUOTES)
    quoted = (ask - bid) / ((ask + bid) / 2)
    return np.where(np.isfinite(quoted), quoted, usual)


def missing_costs(settings: Settings, bars: pl.DataFrame) -> str | None:
    """Why trading on these bars cannot be priced; None where it can."""
    unknown = int(np.isnan(spread(bars, settings.backtest)).sum())
    if not unknown:
        return None
    return (
        f"backtest.spread_bps is empty; required: a spread, since {unknown} of {bars.height} bars lack quotes"
    )


def require_costs(settings: Settings, bars: pl.DataFrame) -> None:
    """Raise SettingsError where trading on these bars cannot be priced."""
    missing = missing_costs(settings, bars)
    if missing is not None:
        raise SettingsError(missing, hint="set backtest.spread_bps to the instrument's usual ask - bid")


def read_bars(settings: Settings, first_us: int, last_us: int) -> pl.DataFrame:
    """The lake's bars that forecasts made in [first_us, last_us] are traded on.

    From one bar before the first decision (whose quotes are known then) to one day after the last label's
    end, microseconds, UTC; columns time, open, close, and bid and ask where there are any.

    Raises
    ------
    LakeError
        There are no bars of that time.
    """
    lake, interval = Lake(settings.lake_uri), settings.bar_interval_minutes
    start, last = utc_series("at", np.array([first_us - interval * _MINUTE_US, last_us]))
    stop = last + timedelta(minutes=settings.labels.horizon_minutes, days=1)
    parts = []
    for partition in lake.partitions(BARS, instrument=settings.instrument):
        if not start.strftime("%Y-%m") <= partition["month"] <= stop.strftime("%Y-%m"):
            continue
        there = lake.null_counts(BARS, partition)
        columns = ["time", "open", "close", *(name for name in QUOTES if name in there)]
        parts.append(pl.DataFrame(lake.read(BARS, partition, columns)))
    if parts:
        bars = pl.concat(parts, how="diagonal").filter(pl.col("time").is_between(start, stop, closed="left"))
        if bars.height:
            return bars
    msg = f"{BARS}: no bars of instrument={settings.instrument} from {start} to {stop} in {settings.lake_uri}"
    raise LakeError(msg, hint="run the ingest stage (marketray ingest) first")


def _check(bars: pl.DataFrame) -> None:
    times = bars["time"].dt.cast_time_unit("us").to_physical().to_numpy()
    if len(times) > 1 and (step := np.diff(times)).min() <= 0:
        at = bars["time"][int(step.argmin()) + 1]
        msg = f"backtest: bar {at} does not follow its predecessor; required: strictly increasing times"
        raise DataError(msg, hint="run the ingest stage, which sorts bars and drops duplicates")
    for name in ("open", "close"):
        price = bars[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if not (np.isfinite(price) & (price > 0)).all():
            msg = f"backtest: {name} is null, not finite or not positive in a bar; required: positive prices"
            raise DataError(msg, hint="run the ingest stage, which quarantines such bars")
