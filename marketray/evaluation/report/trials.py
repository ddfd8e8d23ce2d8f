"""The search of both tuning stages: how the best was reached, and where in the space it lies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    count,
    details,
    fixed,
    heading,
    note,
    section,
    table,
    words,
)
from marketray.evaluation.report.plot import Axis, Plot, linear_axis

__all__ = ["Scale", "best_so_far", "scale_of", "trials"]

Trial = Mapping[str, Any]

_NOTE = (
    "Score: cross-validated RMSE over that of the zero forecast; below 1 is better than zero on the rows the "
    "search chose on. A pruned trial stopped early and its score is of fewer rounds and folds."
)
_MISSING_AT = 0.0
_FIRST_AT = 0.08
_ONE_LINE = 3


def trials(value: Sequence[Trial], _report: Mapping[str, Any]) -> Markup:
    """Per family: optimisation history, parallel coordinates, the best parameters."""
    families = sorted({t["family"] for t in value})
    parts: list[str] = [note(_NOTE), _summary(value)]
    for family in families:
        own = sorted((t for t in value if t["family"] == family), key=lambda t: (t["stage"], t["number"]))
        parts += [heading(words(family)), _history(family, own)]
        if len(complete := [t for t in own if t["state"] == "complete"]) > 1:
            parts.append(_parallel(family, own))
        if complete:
            parts.append(_best_parameters(family, min(complete, key=lambda t: t["score"])))
    return section("trials", "Tuning: every trial of both stages", *parts)


def best_so_far(scores: Sequence[float | None]) -> list[float | None]:
    """Running minimum of the known scores; None before the first."""
    best, found = math.inf, list[float | None]()
    for score in scores:
        best = min(best, math.inf if score is None else score)
        found.append(best if math.isfinite(best) else None)
    return found


def _summary(value: Sequence[Trial]) -> Markup:
    rows: list[Row] = []
    for family, stage in sorted({(t["family"], t["stage"]) for t in value}):
        own = [t for t in value if (t["family"], t["stage"]) == (family, stage)]
        done = [t for t in own if t["state"] == "complete"]
        best = min(done, key=lambda t: t["score"], default=None)
        cells = [
            f"{words(family)}, stage {stage}",
            count(len(own)),
            count(len(done)),
            count(len(own) - len(done)),
            fixed(best["score"] if best else None, 5),
            fixed(best["cv_rmse"] if best else None, 5, scale=100),
            fixed(sum(t["seconds"] for t in own), 1),
        ]
        rows.append(("", cells))
    head = ["family", "trials", "complete", "pruned", "best score", "its CV RMSE, %", "computing, s"]
    return table("Trials by family and stage", head, rows)


def _history(family: str, own: Sequence[Trial]) -> Markup:
    """Scores in the order of the trials, and the best so far."""
    done = [t["score"] if t["state"] == "complete" else None for t in own]
    known = [score for score in done if score is not None] or [t["score"] for t in own]
    y = linear_axis([1.0, *known], "score; below 1 is better than zero", ticks=4)
    ticks = _trial_ticks(len(own))
    x = Axis(0, len(own) + 1, ticks, "trial, in order; points at the edge lie beyond it")
    plot = Plot(f"{words(family)}: score of every trial in order, and the best so far", x, y, height=12)
    plot.span((x.low, x.high), (1, 1), "rule", legend="zero forecast")
    second = next((i for i, t in enumerate(own) if t["stage"] == 2), None)
    if second is not None:
        plot.span((second + 0.5, second + 0.5), (y.low, y.high), "rule dashed", legend="stage 2 starts")
    best = [(i, b) for i, b in enumerate(best_so_far(done), 1) if b is not None]
    if best:
        line = [*best, (len(own), best[-1][1])]
        plot.line([i for i, _ in line], [b for _, b in line], "best", legend="best so far", steps=True)
    for state in ("pruned", "complete"):
        shown = [(i, t) for i, t in enumerate(own, 1) if t["state"] == state]
        for i, t in shown:
            plot.dot(i, t["score"], state, title=f"{t['trial_id']}: {fixed(t['score'], 5)}, {state}")
        if shown:
            plot.key(f"dot {state}", state)
    return plot.markup()


def _trial_ticks(n: int) -> tuple[tuple[float, str], ...]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, n) if n / s <= 8)
    return tuple((float(i), str(i)) for i in range(step, n + 1, step))


@dataclass(frozen=True)
class Scale:
    """An axis of the parallel coordinates: numbers, on a log scale where they span decades, or choices.

    Attributes
    ----------
    name:
        The parameter.
    low, high:
        Ends of a numeric axis.
    log:
        Whether it is logarithmic.
    options:
        Choices in order; empty for a numeric axis.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    options: tuple[str, ...] = ()

    def share(self, value: object) -> float:
        """Where a value lies, 0 at the left; None, a parameter that was not set, stands at the left edge."""
        if value is None:
            return _MISSING_AT
        if self.options:
            return _FIRST_AT + (1 - _FIRST_AT) * (self.options.index(str(value)) + 0.5) / len(self.options)
        number = float(str(value))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(number) if self.log else number
        return _FIRST_AT + (1 - _FIRST_AT) * (0.5 if high == low else (at - low) / (high - low))


def scale_of(name: str, values: Sequence[object]) -> Scale:
    """The axis of a parameter; a positive one whose largest is 30 times its smallest value is logarithmic."""
    known = [v for v in values if v is not None]
    numbers = [float(v) for v in known if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(known) or not known:
        return Scale(name, options=tuple(sorted({str(v) for v in known}, key=_natural)))
    low, high = min(numbers), max(numbers)
    return Scale(name, low, high, log=low > 0 and high / low >= 30)


def _natural(option: str) -> tuple[float, str]:
    """Options that begin with a number by that number, then the others by name."""
    number = re.match(r"\d+(\.\d+)?", option)
    return (float(number[0]) if number else math.inf, option)


def _parallel(family: str, own: Sequence[Trial]) -> Markup:
    """One line a trial through all parameters that vary, down to its score.

    The axes lie one below the other, so that their names and ends can be read on a phone.
    """
    names = sorted({name for t in own for name in t["params"]})
    varying = [n for n in names if len({str(t["params"].get(n)) for t in own}) > 1]
    scales = [scale_of(name, [t["params"].get(name) for t in own]) for name in varying]
    score = scale_of("score", [t["score"] for t in own if t["state"] == "complete"])
    rows = [*scales, score]
    plot = Plot(
        f"{words(family)}: parameters of every trial, down to the score",
        Axis(0, 1),
        Axis(len(rows) - 0.4, -0.4),
        height=3.4 * len(rows),
    )
    for i, scale in enumerate(rows):
        _draw_scale(plot, scale, i, any(t["params"].get(scale.name) is None for t in own) and i < len(scales))
    done = [t for t in own if t["state"] == "complete"]
    fifths = np.quantile([t["score"] for t in done], (0.2, 0.4, 0.6, 0.8))
    worst_first = sorted(own, key=lambda t: (t["state"] == "complete", -t["score"]))
    for t in worst_first:
        at = [scale.share(t["params"].get(scale.name)) for scale in scales]
        style = "pruned"
        if t["state"] == "complete":
            at.append(score.share(t["score"]))
            style = "best" if t is worst_first[-1] else f"q{int(np.searchsorted(fifths, t['score']))}"
        plot.line(at, range(len(at)), style, title=f"{t['trial_id']}: {fixed(t['score'], 5)}, {t['state']}")
    for style, text in (("best", "best"), ("q0", "best fifth"), ("q4", "worst fifth"), ("pruned", "pruned")):
        plot.key(f"line {style}", text)
    return plot.markup()


def _draw_scale(plot: Plot, scale: Scale, row: int, optional: bool) -> None:
    plot.span((_FIRST_AT, 1), (row, row), "scale")
    kind = ", log" if scale.log else ""
    plot.text(0, row, f"{scale.name}{kind}", "above right")
    if optional:
        plot.text(_MISSING_AT, row, "not set", "below right")
    if scale.options:
        for i, option in enumerate(scale.options):
            lower = " lower" if i % 2 and len(scale.options) > _ONE_LINE else ""
            plot.text(scale.share(option), row, option, f"below middle{lower}")
    else:
        plot.text(_FIRST_AT, row, "" if optional else f"{scale.low:.5g}", "below right")
        plot.text(1, row, f"{scale.high:.5g}", "below left")


def _best_parameters(family: str, best: Trial) -> Markup:
    rows: list[Row] = [
        ("", [name, UNKNOWN if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)])
        for name, v in sorted(best["params"].items())
    ]
    caption = f"{words(family)}: parameters of {best['trial_id']}"
    return details("best parameters", table(caption, ["parameter", "value"], rows))
