"""Where the skill is: the figures of one forecast by month, by hour of the session and by volatility."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.intervals import TERCILES
from marketray.evaluation.metrics import hit_rate, r2_oos, rmse_pct

if TYPE_CHECKING:
    from marketray.evaluation.intervals import Groups
    from marketray.evaluation.selection import Rows

__all__ = ["breakdown"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def breakdown(
    rows: Rows, prediction: FloatArray, groups: Groups, covered: BoolArray | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Figures of one forecast on one split, by group; every row is in one group of each kind.

    Parameters
    ----------
    rows:
        Labels and times of the split.
    prediction:
        Centred forecasts, shape (n,).
    groups:
        Hour of the session, and third of the volatility forecast by cuts of training rows, of each row.
    covered:
        Whether the label lies in the 80 % interval, shape (n,). None: there are no intervals.

    Returns
    -------
    dict
        ``month`` (of the decision, UTC, such as 2019-03), ``hour_of_session`` (00 is the first hour) and
        ``volatility`` (low, middle, high): lists of name, n, rmse_pct, zero_rmse_pct, r2_oos (over zero; None
        where every label of the group is zero), hit_rate {rate, low, high}, coverage_80 (None without
        intervals). Groups without rows are left out.

    Raises
    ------
    DataError
        The arrays do not fit together.
    """
    n = len(rows.y)
    given = [prediction, groups.hour, groups.tercile, *([] if covered is None else [covered])]
    if any(np.shape(x) != (n,) for x in given):
        msg = f"breakdown: {n} rows, arrays of shapes {[np.shape(x) for x in given]}; required: ({n},) each"
        raise DataError(msg, hint="pass arrays of the same split")
    months = np.asarray(rows.decision_us, dtype="datetime64[us]").astype("datetime64[M]")
    members = {
        "month": [(str(m), months == m) for m in np.unique(months)],
        "hour_of_session": [(f"{hour:02d}", groups.hour == hour) for hour in np.unique(groups.hour)],
        "volatility": [(TERCILES[k], groups.tercile == k) for k in np.unique(groups.tercile)],
    }
    return {by: list(_figures(rows, prediction, found, covered)) for by, found in members.items()}


def _figures(
    rows: Rows, prediction: FloatArray, members: list[tuple[str, BoolArray]], covered: BoolArray | None
) -> Iterator[dict[str, Any]]:
    for name, member in members:
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
