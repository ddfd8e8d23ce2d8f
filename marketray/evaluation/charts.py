"""The report's plots, as plotly figures without any data that is not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Series", "actual_by_prediction", "cumulative_skill", "split_timeline"]

COLOURS = {
    "train": "#999999",
    "validation": "#56B4E9",
    "test": "#0072B2",
    "oot": "#E69F00",
    "oot2": "#D55E00",
}
"""Okabe and Ito's palette, told apart with any colour vision."""

LABELS = {"train": "train", "validation": "validation", "test": "test", "oot": "OOT", "oot2": "OOT2"}
_POINTS = 800
_BINS = 20


@dataclass(frozen=True)
class Series:
    """Forecasts of one split.

    Attributes
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    y, prediction:
        Label and the selected model's forecast, fractions, shape (n,).
    """

    decision_us: npt.NDArray[np.int64]
    y: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.float64]


def cumulative_skill(series: Mapping[str, Series]) -> go.Figure:
    """Squared error saved against the zero forecast, cumulated, in percent of each split's total.

    The last point of a line is the split's R² over zero; a line that keeps rising is skill that lasts.
    """
    figure = _figure("squared error saved, cumulated (% of the split's total)", "decision time, UTC")
    for name, s in series.items():
        saved = np.cumsum(s.y**2 - (s.y - s.prediction) ** 2) / np.sum(s.y**2)
        at = np.unique(np.linspace(0, len(saved) - 1, _POINTS).astype(int))
        figure.add_scatter(
            x=s.decision_us[at].astype("datetime64[us]"),
            y=100 * saved[at],
            name=LABELS[name],
            mode="lines",
            line={"color": COLOURS[name], "width": 2},
        )
    figure.add_hline(y=0, line={"color": "#555", "width": 1, "dash": "dot"})
    return figure


def actual_by_prediction(series: Mapping[str, Series], horizon_rows: int) -> go.Figure:
    """Mean actual return in groups of equal size by forecast, with 95 % bars, and actual = predicted.

    Parameters
    ----------
    horizon_rows:
        Rows a label covers: a group of n rows counts as n / horizon_rows independent ones.
    """
    figure = _figure("mean actual return (bps)", "mean predicted return (bps)")
    reach = 0.0
    for name, s in series.items():
        groups = np.array_split(np.argsort(s.prediction, kind="stable"), min(_BINS, len(s.y)))
        predicted = np.array([s.prediction[g].mean() for g in groups]) * 1e4
        actual = np.array([s.y[g].mean() for g in groups]) * 1e4
        half = (
            np.array([1.96 * s.y[g].std() / np.sqrt(max(1.0, len(g) / horizon_rows)) for g in groups]) * 1e4
        )
        reach = max(reach, float(np.abs(predicted).max()))
        figure.add_scatter(
            x=predicted,
            y=actual,
            name=LABELS[name],
            mode="markers",
            marker={"color": COLOURS[name], "size": 7},
            error_y={"type": "data", "array": half, "thickness": 1, "width": 0},
        )
    figure.add_scatter(
        x=[-reach, reach],
        y=[-reach, reach],
        mode="lines",
        name="actual = predicted",
        line={"color": "#555", "dash": "dot", "width": 1},
    )
    return figure


def split_timeline(splits: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """The splits in time; the white between them are the purge and the embargo."""
    figure = _figure("", "decision time, UTC", height=170)
    for name, block in splits.items():
        first, last = (datetime.fromisoformat(block[k]) for k in ("first_decision_at", "last_decision_at"))
        figure.add_bar(
            y=["rows"],
            x=[1000 * (last - first).total_seconds()],
            base=[first.replace(tzinfo=None).isoformat()],
            orientation="h",
            name=LABELS[name],
            marker={"color": COLOURS[name]},
            hovertemplate=f"{LABELS[name]}: {block['rows']:,} rows<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.2)
    figure.update_xaxes(type="date")
    figure.update_yaxes(showticklabels=False)
    return figure


def _figure(y_title: str, x_title: str, height: int = 380) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    axis = {"gridcolor": "#e6e6e6", "zeroline": False, "linecolor": "#999", "automargin": True}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={**axis, "title": {"text": x_title}},
        yaxis={**axis, "title": {"text": y_title, "font": {"size": 12}}},
    )
    return figure
