"""Where the skill is: the figures of one forecast by month, by hour of the session and by volatility."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.metrics import hit_rate, r2_oos, rmse_pct

if TYPE_CHECKING:
    from marketray.evaluation.selection import Rows

__all__ = ["VOLATILITY_NAMES", "breakdown", "hour_of_session", "month", "tercile", "tercile_cuts"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Groups = list[tuple[str, npt.NDArray[np.bool_]]]

VOLATILITY_NAMES = ("low", "middle", "high")

_HOUR_US = 3_600_000_000


def tercile_cuts(volatility: npt.ArrayLike) -> tuple[float, float]:
    """The two quantiles that cut training rows into thirds.

    Parameters
    ----------
    volatility:
        A volatility of the training rows, known at the decision, shape (n,); NaN are left out.

    Raises
    ------
    DataError
        No value is finite.
    """
    values = np.asarray(volatility, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        msg = f"tercile_cuts: none of {len(values)} volatilities is finite; required: at least one"
        raise DataError(msg, hint="take a volatility column that the dataset has")
    low, high = np.quantile(finite, [1 / 3, 2 / 3])
    return float(low), float(high)


def month(decision_us: npt.ArrayLike) -> Groups:
    """Rows by calendar month of the decision in UTC, named ``2019-03``, in time order.

    Parameters
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    """
    months = np.asarray(decision_us, dtype="datetime64[us]").astype("datetime64[M]")
    return [(str(m), months == m) for m in np.unique(months)]


def hour_of_session(decision_us: npt.ArrayLike, session_open_us: npt.ArrayLike) -> Groups:
    """Rows by full hours from the session's open to the decision, named ``0–1 h``, ``1–2 h`` ….

    Parameters
    ----------
    decision_us, session_open_us:
        Microseconds since the epoch, UTC, shape (n,).
    """
    hours = (np.asarray(decision_us) - np.asarray(session_open_us)) // _HOUR_US
    return [(f"{h}–{h + 1} h", hours == h) for h in np.unique(hours)]


def tercile(volatility: npt.ArrayLike, cuts: tuple[float, float]) -> Groups:
    """Rows by the thirds of the training rows; those without a volatility are ``unknown``.

    Parameters
    ----------
    volatility:
        As for `tercile_cuts`, of the rows to group, shape (n,).
    cuts:
        From `tercile_cuts`; a value equal to a cut belongs to the lower group.
    """
    values = np.asarray(volatility, dtype=np.float64)
    place = np.searchsorted(cuts, values, side="left")
    known = np.isfinite(values)
    groups = [(name, known & (place == k)) for k, name in enumerate(VOLATILITY_NAMES)]
    return [(name, rows) for name, rows in [*groups, ("unknown", ~known)] if rows.any()]


def breakdown(
    rows: Rows,
    prediction: FloatArray,
    *,
    session_open_us: IntArray,
    volatility: FloatArray,
    cuts: tuple[float, float],
    covered: npt.NDArray[np.bool_] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Figures of one forecast on one split, by group.

    Parameters
    ----------
    rows:
        Labels and times of the split.
    prediction:
        Centred forecasts, shape (n,).
    session_open_us:
        Opens of the rows' sessions, microseconds since the epoch, UTC, shape (n,).
    volatility, cuts:
        A volatility known at the decision, shape (n,), and its `tercile_cuts` on training rows.
    covered:
        Whether the label lies in the 80 % interval, shape (n,). None: there are no intervals.

    Returns
    -------
    dict
        month, hour_of_session and volatility: lists of name, n, rmse_pct, zero_rmse_pct, r2_oos (over zero;
        None where every label of the group is zero), hit_rate {rate, low, high}, coverage_80 (None without
        intervals). Groups hold all rows once.

    Raises
    ------
    DataError
        The arrays do not fit together.
    """
    n = len(rows.y)
    given = [prediction, session_open_us, volatility, *([] if covered is None else [covered])]
    if any(np.shape(x) != (n,) for x in given):
        msg = f"breakdown: {n} rows, arrays of shapes {[np.shape(x) for x in given]}; required: ({n},) each"
        raise DataError(msg, hint="pass arrays of the same split")
    groups = {
        "month": month(rows.decision_us),
        "hour_of_session": hour_of_session(rows.decision_us, session_open_us),
        "volatility": tercile(volatility, cuts),
    }
    return {by: list(_figures(rows, prediction, found, covered)) for by, found in groups.items()}


def _figures(
    rows: Rows, prediction: FloatArray, groups: Groups, covered: npt.NDArray[np.bool_] | None
) -> Iterator[dict[str, Any]]:
    for name, member in groups:
        y, forecast = rows.y[member], prediction[member]
        zero = np.zeros_like(y)
        hits = hit_rate(y, forecast, rows.decision_us[member], rows.horizon_minutes)
        yield {
            "name": name,
            "n": len(y),
            "rmse_pct": rmse_pct(y, forecast),
            "zero_rmse_pct": rmse_pct(y, zero),
            "r2_oos": r2_oos(y, forecast, zero) if y.any() else None,
            "hit_rate": {"rate": hits.rate, "low": hits.low, "high": hits.high},
            "coverage_80": None if covered is None else float(covered[member].mean()),
        }
