"""Seeded markets with overlapping labels, for the size and the power of the tests of skill."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from marketray.dataset.labels import label_bars
from marketray.dataset.load import Block
from marketray.ingest.sources.simulator import simulate
from marketray.sessions import trading_sessions
from marketray.settings import load_settings

Array = npt.NDArray[np.float64]

HORIZON = 30

WINDOW = 60
"""Minutes that the trailing volatility looks back."""

SESSION = 1_380
"""Minutes of a session, over which volatility has the shape of a U."""


KIEFER_VOGELSANG = (1.9600, 2.9694, 0.4160, -0.5324)
"""Two-sided 95 % critical value of the Bartlett window, a cubic of its share of the rows; from the paper."""


def critical_95(n: int, window: float) -> float:
    """Of the mean of n rows whose errors are estimated with a Bartlett window of so many rows."""
    return sum(c * (window / n) ** k for k, c in enumerate(KIEFER_VOGELSANG))


def garch(rng: np.random.Generator, n: int, paths: int, *, burn: int = 300) -> Array:
    """GARCH(1,1) returns with Student t₆ shocks and unit variance, shape (n, paths)."""
    a, b = 0.05, 0.94
    shocks = rng.standard_t(6, (n + burn, paths)) / np.sqrt(1.5)
    out, variance = np.empty_like(shocks), np.ones(paths)
    for i in range(n + burn):
        out[i] = np.sqrt(variance) * shocks[i]
        variance = 1 - a - b + a * out[i] ** 2 + b * variance
    return out[burn:]


def ar1(rng: np.random.Generator, n: int, paths: int, phi: float) -> Array:
    """AR(1) forecasts of unit variance, started from their own distribution, shape (n, paths)."""
    out = rng.standard_normal((n, paths))
    for i in range(1, n):
        out[i] = phi * out[i - 1] + np.sqrt(1 - phi**2) * out[i]
    return out


def overlapping_labels(rng: np.random.Generator, n: int, paths: int) -> Array:
    """Sums over the HORIZON minutes that follow each minute, shape (n, paths)."""
    total = np.vstack([np.zeros((1, paths)), np.cumsum(garch(rng, n + HORIZON, paths), axis=0)])
    return total[HORIZON : HORIZON + n] - total[:n]


def market(rng: np.random.Generator, n: int, paths: int) -> tuple[Array, Array]:
    """Labels as `overlapping_labels`, wilder near the edges of sessions, and the trailing volatility.

    Both of shape (n, paths); the volatility of row i is the root mean square of the WINDOW minutes before
    the label's HORIZON minutes begin.
    """
    place = np.arange(n + WINDOW + HORIZON) % SESSION / SESSION
    returns = (0.6 + 1.2 * (2 * place[:, None] - 1) ** 2) * garch(rng, n + WINDOW + HORIZON, paths)
    start = np.zeros((1, paths))
    total = np.vstack([start, np.cumsum(returns, axis=0)])
    squares = np.vstack([start, np.cumsum(returns**2, axis=0)])
    labels = total[WINDOW + HORIZON : WINDOW + HORIZON + n] - total[WINDOW : WINDOW + n]
    return labels, np.sqrt((squares[WINDOW : WINDOW + n] - squares[:n]) / WINDOW)


def fading(rng: np.random.Generator, n: int, paths: int) -> Array:
    """Forecasts of unit variance that sum impulses which fade over HORIZON minutes, shape (n, paths)."""
    impulses = rng.standard_normal((n + HORIZON - 1, paths))
    weights = np.arange(HORIZON, 0, -1.0)
    weights /= np.sqrt(np.sum(weights**2))
    return sum(w * impulses[HORIZON - 1 - k : HORIZON - 1 - k + n] for k, w in enumerate(weights))


def simulated_block(
    seed: int, bars: int, effect: str, market_r2: float, *, lags: int = 0
) -> tuple[Block, Array]:
    """Rows of the embedded simulator with two trailing volatilities and lags, and the oracle's forecasts."""
    source = {"kind": "simulator", "bars": bars, "seed": seed, "effect": effect, "market_r2": market_r2}
    settings = load_settings(
        None, {"source": {**source, "start": "2010-01-04"}, "instrument": "SIM", "name": "simulated"}
    )
    chunks = list(simulate(settings.source, settings.market, "SIM"))  # type: ignore[arg-type]
    table = pl.DataFrame(pa.concat_tables([c.bars for c in chunks]))
    oracle = np.concatenate([c.oracle["market"].to_numpy() for c in chunks])
    span = table["time"][0].date(), table["time"][-1].date()
    sessions = trading_sessions(settings.market.calendar, *span, settings.market.breaks)
    found = label_bars(table, sessions, settings.labels)
    close = table["close"].to_numpy()
    change = np.diff(np.log(close), prepend=np.log(close[0]))
    squares = np.concatenate([np.zeros(121), np.cumsum(change**2)])
    columns = {
        f"realized_volatility_{w}": np.sqrt((squares[121:] - squares[121 - w : -w]) / w) for w in (20, 120)
    }
    columns |= {f"return_1_lag_{k}": np.roll(change, k) for k in range(lags)}
    kept = found["label_return"].is_not_null().to_numpy() & (np.arange(len(close)) >= 121)

    def us(name: str) -> npt.NDArray[np.int64]:
        return np.asarray(found[name].to_physical().to_numpy()[kept], dtype=np.int64)

    values = np.column_stack(list(columns.values()))[kept].astype(np.float32)
    ids = us("decision_at").astype(np.str_)
    label = found["label_return"].to_numpy()[kept]
    times = (us("decision_at"), us("session_open_at"), us("label_end_at"))
    return Block(ids, *times, label, close[kept], tuple(columns), values), oracle[kept]
