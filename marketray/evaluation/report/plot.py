"""Charts as HTML and SVG, without a script: they print, follow the reader's theme and fit any width.

The marks are stretched over the frame while strokes and dots keep their size; all text is HTML around and
over them, so it stays legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape

from marketray.evaluation.outcome import minus
from marketray.evaluation.report.markup import Markup, html

__all__ = ["Axis", "Plot", "linear_axis", "share_bar", "span_cell", "time_axis"]

_SIZE = 1000
_HOURS = (1, 3, 6, 12, 24, 48, 168, 336)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
_HOURS_A_MONTH = 730.5


@dataclass(frozen=True)
class Axis:
    """A straight scale.

    Attributes
    ----------
    low, high:
        Values at its ends; `low` may be the larger one, which turns the axis round.
    ticks:
        (value, text).
    title:
        What it measures, with the unit.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    title: str = ""

    def share(self, value: float) -> float:
        """Where `value` lies: 0 at `low`, 1 at `high`; what lies beyond an end is held there."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def linear_axis(values: Iterable[float], title: str, *, ticks: int = 5) -> Axis:
    """An axis over `values` that ends on round numbers (steps of 1, 2 or 5 times a power of ten)."""
    known = list(values)
    low, high = min(known), max(known)
    if high <= low:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    marks = tuple((n * step, minus(n * step, digits)) for n in range(first, last + 1))
    return Axis(first * step, last * step, marks, title)


def time_axis(first: datetime, last: datetime, title: str, *, ticks: int = 4) -> Axis:
    """An axis in seconds since the epoch, UTC, with ticks at round dates; at least one minute long."""
    last = max(last, first + timedelta(minutes=1))
    hours = (last - first).total_seconds() / 3600
    step = next((h for h in _HOURS if hours / h <= ticks), None)
    if step is not None:
        dates = _every_hours(first, last, step)
        form = "%m-%d %H:%M" if step < 24 else "%Y-%m-%d"
    else:
        months = next((m for m in _MONTHS if hours / (_HOURS_A_MONTH * m) <= ticks), _MONTHS[-1])
        dates = _every_months(first, last, months)
        form = "%Y-%m" if months < 12 else "%Y"
    marks = tuple((at.timestamp(), at.strftime(form)) for at in dates)
    return Axis(first.timestamp(), last.timestamp(), marks, title)


def _every_hours(first: datetime, last: datetime, step: int) -> list[datetime]:
    midnight = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    count = int((last - midnight).total_seconds() // (3600 * step)) + 1
    dates = (midnight + timedelta(hours=step * n) for n in range(count))
    return [at for at in dates if at >= first]


def _every_months(first: datetime, last: datetime, step: int) -> list[datetime]:
    start, stop = (at.year * 12 + at.month - 1 for at in (first, last))
    numbers = range(start // step * step, stop + 1, step)
    dates = (datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in numbers)
    return [at for at in dates if at >= first]


class Plot:
    """A chart that is drawn mark by mark.

    Parameters
    ----------
    label:
        What the chart shows, in a sentence: its name for those who cannot see it.
    x, y:
        Scales; values beyond their ends are drawn at the edge.
    height:
        Of the frame, in rem.
    """

    def __init__(self, label: str, x: Axis, y: Axis, *, height: float = 17.0) -> None:
        self.label, self.x, self.y, self.height = label, x, y, height
        self._marks: list[str] = []
        self._texts: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def line(
        self,
        xs: Iterable[float],
        ys: Iterable[float],
        style: str,
        *,
        title: str = "",
        legend: str = "",
        steps: bool = False,
    ) -> None:
        """A line through the points; with `steps` it stays level until the next one."""
        points = [self._point(x, y) for x, y in zip(xs, ys, strict=True)]
        joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        if steps:
            moves = "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
            joined = f"{points[0][0]:.1f} {points[0][1]:.1f}{moves}" if points else ""
        self._add("line", f"M{joined}", style, title, legend)

    def dot(self, x: float, y: float, style: str, *, title: str = "", legend: str = "") -> None:
        """A round mark."""
        left, top = self._point(x, y)
        self._add("dot", f"M{left:.1f} {top:.1f}h0", style, title, legend)

    def span(
        self, x: tuple[float, float], y: tuple[float, float], style: str, *, title: str = "", legend: str = ""
    ) -> None:
        """A straight line from (x[0], y[0]) to (x[1], y[1])."""
        (left, top), (right, bottom) = self._point(x[0], y[0]), self._point(x[1], y[1])
        self._add("span", f"M{left:.1f} {top:.1f}L{right:.1f} {bottom:.1f}", style, title, legend)

    def box(
        self, x: tuple[float, float], y: tuple[float, float], style: str, *, title: str = "", legend: str = ""
    ) -> None:
        """A filled rectangle."""
        (left, top), (right, bottom) = self._point(x[0], y[1]), self._point(x[1], y[0])
        path = f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"
        self._add("box", path, style, title, legend)

    def text(self, x: float, y: float, text: str, place: str = "") -> None:
        """Words in the frame; `place` is a style class that says on which side of the point they stand."""
        left, top = self._point(x, y)
        at = f"left:{left / 10:.1f}%;top:{top / 10:.1f}%"
        self._texts.append(f"<span class='word {place}' style='{at}'>{html(text)}</span>")

    def key(self, style: str, text: str) -> None:
        """An entry of the legend; the style names the kind of mark too."""
        self._legend.append((style, text))

    def markup(self) -> Markup:
        """The chart as HTML."""
        gutter = 0.8 + 0.5 * max((len(text) for _, text in self.y.ticks), default=0)
        grid = [f"M0 {self._point(self.x.low, v)[1]:.1f}H{_SIZE}" for v, _ in self.y.ticks]
        grid += [f"M{self._point(v, self.y.low)[0]:.1f} 0V{_SIZE}" for v, _ in self.x.ticks]
        ticks = [
            f"<span class='ytick' style='top:{100 - 100 * self.y.share(v):.1f}%'>{html(text)}</span>"
            for v, text in self.y.ticks
        ]
        ticks += [
            f"<span class='xtick' style='left:{100 * self.x.share(v):.1f}%'>{html(text)}</span>"
            for v, text in self.x.ticks
        ]
        keys = "".join(f"<li><i class='{s}'></i>{html(text)}</li>" for s, text in self._legend)
        return Markup(
            "<figure class='chart'>"
            + (f"<ul class='legend'>{keys}</ul>" if keys else "")
            + (f"<p class='axis'>{html(self.y.title)}</p>" if self.y.title else "")
            + f"<div class='frame' style='height:{self.height:g}rem;margin-left:{gutter:.1f}rem'>"
            f"<svg viewBox='0 0 {_SIZE} {_SIZE}' preserveAspectRatio='none' role='img' "
            f"aria-label='{escape(self.label)}'><path class='grid' d='{''.join(grid)}'/>"
            f"{''.join(self._marks)}</svg>"
            f"<div aria-hidden='true'>{''.join(ticks)}{''.join(self._texts)}</div></div>"
            + (f"<p class='axis below'>{html(self.x.title)}</p>" if self.x.title else "")
            + "</figure>"
        )

    def _point(self, x: float, y: float) -> tuple[float, float]:
        return _SIZE * self.x.share(x), _SIZE * (1 - self.y.share(y))

    def _add(self, kind: str, path: str, style: str, title: str, legend: str) -> None:
        if legend:
            self.key(f"{kind} {style}", legend)
        inner = f"<title>{html(title)}</title>" if title else ""
        self._marks.append(f"<path class='mark {kind} {style}' d='{path}'>{inner}</path>")


def span_cell(
    axis: Axis, low: float | None, value: float | None, high: float | None, origin: float
) -> Markup:
    """A value with its interval as a small drawing for a table cell, and a rule at `origin`."""
    if value is None:
        return Markup("")
    if not axis.low <= value <= axis.high:
        return Markup("<span class='off'>off the scale</span>")
    marks = f"<path class='rule' d='M{_SIZE * axis.share(origin):.0f} 0V{_SIZE}'/>"
    if low is not None and high is not None:
        ends = _SIZE * axis.share(low), _SIZE * axis.share(high)
        marks += f"<path class='mark span' d='M{ends[0]:.0f} {_SIZE // 2}H{ends[1]:.0f}'/>"
    marks += f"<path class='mark dot' d='M{_SIZE * axis.share(value):.0f} {_SIZE // 2}h0'/>"
    box = f"viewBox='0 0 {_SIZE} {_SIZE}' preserveAspectRatio='none'"
    return Markup(f"<svg class='cell' {box} aria-hidden='true'>{marks}</svg>")


def share_bar(share: float, style: str = "") -> Markup:
    """A bar of 0 to 100 % of a table cell."""
    width = 100 * min(1.0, max(0.0, share))
    return Markup(f"<span class='bar {style}' aria-hidden='true'><i style='width:{width:.1f}%'></i></span>")
