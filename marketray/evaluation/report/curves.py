"""What the selected model's forecasts did, row by row: skill over time, and actual against predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from marketray.evaluation.report.markup import Markup, fixed, side_by_side
from marketray.evaluation.report.names import LABELS
from marketray.evaluation.report.plot import Plot, linear_axis, time_axis

__all__ = [
    "Groups",
    "Series",
    "actual_by_prediction",
    "cumulative_skill",
    "groups_by_forecast",
    "saved_error",
]

FloatArray = npt.NDArray[np.float64]

_POINTS = 400
_BINS = 20


@dataclass(frozen=True)
class Series:
    """Forecasts of one split.

    Attributes
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,), rising.
    y, prediction:
        Label and the selected model's forecast, fractions, shape (n,).
    """

    decision_us: npt.NDArray[np.int64]
    y: FloatArray
    prediction: FloatArray


@dataclass(frozen=True)
class Groups:
    """Rows in groups of equal size by forecast, each array of shape (groups,), basis points.

    Attributes
    ----------
    predicted, actual:
        Mean forecast and mean label.
    half:
        Half width of the 95 % interval of `actual`.
    """

    predicted: FloatArray
    actual: FloatArray
    half: FloatArray


def saved_error(series: Series) -> FloatArray:
    """Squared error saved against the zero forecast, cumulated, in percent of the split's total, shape (n,).

    The last value is the split's R² over zero in percent.
    """
    y = series.y
    return np.asarray(100 * np.cumsum(y**2 - (y - series.prediction) ** 2) / np.sum(y**2), dtype=np.float64)


def groups_by_forecast(series: Series, horizon_rows: int) -> Groups:
    """At most 20 groups; one of n rows counts as n / horizon_rows independent ones."""
    y, forecast = series.y, series.prediction
    parts = np.array_split(np.argsort(forecast, kind="stable"), min(_BINS, len(y)))
    size = np.array([max(1.0, len(p) / horizon_rows) for p in parts])
    return Groups(
        predicted=1e4 * np.array([forecast[p].mean() for p in parts]),
        actual=1e4 * np.array([y[p].mean() for p in parts]),
        half=1e4 * 1.96 * np.array([y[p].std() for p in parts]) / np.sqrt(size),
    )


def cumulative_skill(series: Mapping[str, Series]) -> Markup:
    """One chart a split: a line that keeps rising is skill that lasts, one jump is luck."""
    return Markup("".join(_skill_line(name, s) for name, s in series.items()))


def _skill_line(name: str, series: Series) -> str:
    saved = saved_error(series)
    at = np.unique(np.linspace(0, len(saved) - 1, _POINTS).astype(int))
    seconds = series.decision_us[at] / 1e6
    first, last = (datetime.fromtimestamp(float(seconds[i]), UTC) for i in (0, -1))
    y = linear_axis([0.0, *saved[at]], "squared error saved, cumulated, % of the split's total", ticks=4)
    skill = f"R² {fixed(saved[-1], 3)} %"
    label = f"{LABELS[name]}: squared error saved over time, ending at {skill}"
    plot = Plot(label, time_axis(first, last, "decision time, UTC"), y, height=11)
    plot.span((plot.x.low, plot.x.high), (0, 0), "rule")
    plot.line(seconds, saved[at], f"s-{name}", title=label, legend=f"{LABELS[name]}, {skill}")
    return plot.markup()


def actual_by_prediction(series: Mapping[str, Series], horizon_rows: int) -> Markup:
    """One chart a split: mean actual return of each group with its interval, and actual = predicted."""
    return side_by_side(_group_dots(name, s, horizon_rows) for name, s in series.items())


def _group_dots(name: str, series: Series, horizon_rows: int) -> str:
    found = groups_by_forecast(series, horizon_rows)
    x = linear_axis([0.0, *found.predicted], "mean predicted return, bps", ticks=4)
    ends = [0.0, *(found.actual - found.half), *(found.actual + found.half)]
    y = linear_axis(ends, "mean actual return, bps", ticks=4)
    plot = Plot(f"{LABELS[name]}: actual return against predicted, by group of forecasts", x, y, height=11)
    plot.span((x.low, x.high), (0, 0), "rule")
    low, high = max(x.low, y.low), min(x.high, y.high)
    plot.span((low, high), (low, high), "rule dashed", legend="actual = predicted")
    for predicted, actual, half in zip(found.predicted, found.actual, found.half, strict=True):
        text = f"predicted {fixed(predicted, 2)} bps, actual {fixed(actual, 2)} ± {fixed(half, 2)} bps"
        plot.span((predicted, predicted), (actual - half, actual + half), f"s-{name}")
        plot.dot(predicted, actual, f"s-{name}", title=text)
    plot.key(f"dot s-{name}", LABELS[name])
    return plot.markup()
