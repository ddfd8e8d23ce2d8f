"""The simulator's order flow, volatility, prices, volume and quotes on the minute grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketray.ingest.schemas import TIME_TYPE, bar_schema
from marketray.ingest.sources.simulator_grid import MinuteGrid

__all__ = [
    "BASE_RANGE",
    "BODY_VARIANCE",
    "MarketState",
    "OrderFlow",
    "bars",
    "draw_flow",
    "volatility_profile",
]

BASE_RANGE = 4.6e-4
"""Root mean square of a bar's range (high - low) / open; about 1 % volatility in a 23-hour session."""

BODY_VARIANCE = 1 / 3
"""Expected squared body of a bar in units of its squared range; x is uniform on (-1, 1)."""

_START_PRICE = 4_500.0
_PERSISTENCE, _LOG_VOLATILITY_SD = 0.998, 0.30  # of log volatility a minute: half-life of 6 hours
_RANGE_SHOCK_SD = 0.40  # of the log of a bar's own range
_U_MIDDLE, _U_EDGE = 0.75, 0.6  # volatility in the middle of a session, and what its edges add
_GAP_SD_HOUR, _GAP_SD_MAX, _GAP_REVERSION = 5e-4, 1e-2, 2e-3  # of log prices, while the market is closed
_VOLUME_MEDIAN, _VOLUME_SD, _VOLUME_SLOPE = 400.0, 0.35, 1.2
_SPREAD_MEDIAN, _SPREAD_SD, _SPREAD_SLOPE = 6e-5, 0.15, 0.7

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MarketState:
    """What one month hands to the next: log volatility (deviation) and log price over the first price."""

    log_volatility: float | None = None
    log_price: float = 0.0


@dataclass(frozen=True)
class OrderFlow:
    """What drives the bars, exogenous to all prices, on the grid's slots, shape (slots,) each.

    Attributes
    ----------
    scale:
        Volatility scale sigma, known when the minute begins, as a fraction of the price.
    imbalance:
        x in (-1, 1): the bar's (close - open) / (high - low).
    body_range:
        R, the bar's (high - low) / open; 0 where there is no bar.
    present:
        Whether the minute has a bar.
    """

    scale: Float64Array
    imbalance: Float64Array
    body_range: Float64Array
    present: npt.NDArray[np.bool_]

    @property
    def body(self) -> Float64Array:
        """(close - open) / open = x R."""
        return self.imbalance * self.body_range


def volatility_profile(fraction: Float64Array) -> Float64Array:
    """U-shape over a session, of mean square 1; `fraction` is the share of the session gone by."""
    a, b = _U_MIDDLE, _U_EDGE
    shape = a + b * (2 * fraction - 1) ** 2
    return np.asarray(shape / np.sqrt(a * a + 2 * a * b / 3 + b * b / 5))


def draw_flow(
    rng: np.random.Generator, grid: MinuteGrid, state: MarketState, missing_share: float
) -> tuple[OrderFlow, MarketState]:
    """Draw volatility, imbalance and presence.

    sigma is U-shape x exp(h), h an AR(1) a minute that runs on through closed hours as 30 minutes
    (Taylor, 1986, stochastic volatility); R = sigma x a log-normal shock, which makes the tails fat.
    """
    n = len(grid.minute)
    deviation = _LOG_VOLATILITY_SD * _autoregression(rng, n, state.log_volatility)
    scale = BASE_RANGE * volatility_profile(grid.fraction) * np.exp(deviation - _LOG_VOLATILITY_SD**2)
    shock = np.exp(_RANGE_SHOCK_SD * rng.standard_normal(n) - _RANGE_SHOCK_SD**2)
    imbalance = rng.uniform(-1.0, 1.0, n)
    present = grid.inside & (rng.random(n) >= missing_share)
    flow = OrderFlow(scale, imbalance, np.where(present, scale * shock, 0.0), present)
    return flow, MarketState(float(deviation[-1]) / _LOG_VOLATILITY_SD, state.log_price)


def _autoregression(rng: np.random.Generator, n: int, before: float | None) -> Float64Array:
    """AR(1) of unit stationary variance that follows `before`, or starts in its stationary law."""
    from scipy.signal import lfilter

    first = float(rng.standard_normal()) if before is None else before
    noise = np.sqrt(1 - _PERSISTENCE**2) * rng.standard_normal(n)
    path, _ = lfilter([1.0], [1.0, -_PERSISTENCE], noise, zi=[_PERSISTENCE * first])
    return np.asarray(path, dtype=np.float64)


def bars(
    rng: np.random.Generator, grid: MinuteGrid, flow: OrderFlow, drift: Float64Array, state: MarketState
) -> tuple[pa.Table, MarketState]:
    """Bars of the present minutes, without flags, and the state after them.

    A present minute multiplies the price by (1 + drift), between bars, and by (1 + x R), within the
    bar; an absent one does not move it. While closed the price jumps, and reverts slowly to its start.
    """
    log_close = _log_price(rng, grid, flow, drift, state)
    n, keep = len(grid.minute), flow.present
    upper, volume_noise, spread_noise = rng.random(n), rng.standard_normal(n), rng.standard_normal(n)
    close = _START_PRICE * np.exp(log_close[keep])
    open_ = close / (1 + flow.body[keep])
    wicks = open_ * flow.body_range[keep] * (1 - np.abs(flow.imbalance[keep]))
    high = np.maximum(open_, close) + wicks * upper[keep]
    low = np.minimum(open_, close) - wicks * (1 - upper[keep])
    activity = np.log(flow.body_range[keep] / BASE_RANGE)
    log_volume = _VOLUME_SLOPE * activity + _VOLUME_SD * volume_noise[keep]
    volume = np.maximum(np.round(_VOLUME_MEDIAN * np.exp(log_volume)), 1.0)
    spread = _SPREAD_MEDIAN * np.exp(_SPREAD_SLOPE * activity + _SPREAD_SD * spread_noise[keep])
    time = pa.array(grid.time_us[keep], pa.int64()).cast(TIME_TYPE)
    quotes = (close * (1 - spread / 2), close * (1 + spread / 2))
    columns = [time, *map(pa.array, (open_, high, low, close, volume, *quotes))]
    table = pa.table(columns, schema=bar_schema(sizes=False, flags=False))
    return table, MarketState(state.log_volatility, float(log_close[-1]))


def _log_price(
    rng: np.random.Generator, grid: MinuteGrid, flow: OrderFlow, drift: Float64Array, state: MarketState
) -> Float64Array:
    """Log of the close over the first price, on all slots; gaps fall on each session's first slot."""
    step = np.where(flow.present, np.log1p(np.where(flow.present, drift, 0.0)) + np.log1p(flow.body), 0.0)
    moved = np.add.reduceat(step, grid.first_slot)
    hours = (grid.open_us - grid.closed_since_us) / 3.6e9
    jump = np.minimum(_GAP_SD_HOUR * np.sqrt(hours), _GAP_SD_MAX) * rng.standard_normal(len(hours))
    level = state.log_price
    for k in range(len(hours)):
        gap = float(jump[k]) - _GAP_REVERSION * level * (hours[k] > 0)
        step[grid.first_slot[k]] += gap
        level += gap + float(moved[k])
    return np.asarray(state.log_price + np.cumsum(step))
