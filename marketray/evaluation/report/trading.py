"""What trading on the forecasts would have earned after costs, beside buy and hold and doing nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    between,
    count,
    fixed,
    note,
    percent,
    section,
    stamp,
    table,
    words,
)
from marketray.evaluation.report.names import LABELS
from marketray.evaluation.report.plot import Plot, linear_axis, time_axis

__all__ = ["backtest"]

_LINES = {"strategy": "strategy, after costs", "buy_and_hold": "buy and hold"}
_HEAD = (
    "period",
    "return, %",
    "annual, %",
    "Sharpe",
    "95 % interval",
    "largest fall, %",
    "trades",
    "won, %",
    "turnover",
    "exposure",
    "costs, %",
    "break-even cost, bps",
)
_WINDOW = ("name", "first", "last", "reason")
_NOTE = (
    "A simulation on past prices, not a promise. Break-even cost: the cost of a trade, one way, at which "
    "nothing would be left. Doing nothing (flat) earns 0."
)


def backtest(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Assumptions first, then the curve, the figures by period, and the stress windows."""
    parts: list[str] = [note(_NOTE)]
    if value.get("curve"):
        parts.append(_curve(value["curve"]))
    periods = dict(
        sorted(value["periods"].items(), key=lambda item: (item[1].get("first_decision_at") or "", item[0]))
    )
    named = [
        (f"{LABELS.get(period, words(period))}: {words(name)}", holders[name])
        for period, holders in periods.items()
        for name in ("strategy", "buy_and_hold", "flat")
        if name in holders
    ]
    parts.append(table("Backtest by period", _HEAD, [_figures(name, figures) for name, figures in named]))
    parts += _reasons(named)
    parts.append(_decisions(periods))
    if value.get("stress"):
        parts.append(_stress(value["stress"]))
    assumed: list[Row] = [("", [words(k), _plain(v)]) for k, v in sorted(value["assumptions"].items())]
    parts.insert(1, table("Assumptions", ["what", "assumed"], assumed, prose=("assumed",)))
    return section("backtest", "Backtest", *parts)


def _reasons(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Markup]:
    """Why figures are not known, each reason once with those whom it concerns."""
    names: dict[str, list[str]] = {}
    for name, figures in named:
        if figures.get("reason"):
            names.setdefault(str(figures["reason"]), []).append(name)
    return [note(f"{', '.join(concerned)}: {reason}.") for reason, concerned in names.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        if set(value) == {"unit", "value"}:
            return f"{_plain(value['value'])} {value['unit']}"
        return ", ".join(f"{words(k)} {_plain(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return UNKNOWN if value is None else words(value)


def _decisions(periods: Mapping[str, Mapping[str, Any]]) -> Markup:
    """How many forecasts led to a position, and how many could not be filled."""
    keys = ("decisions", "signals", "unfilled")
    rows: list[Row] = []
    for period, found in periods.items():
        times = (stamp(str(found.get(key) or UNKNOWN)) for key in ("first_decision_at", "last_decision_at"))
        rows.append(
            ("", [LABELS.get(period, words(period)), *times, *(count(found.get(key)) for key in keys)])
        )
    head = [
        "period",
        "first decision, UTC",
        "last decision, UTC",
        "decisions",
        "signals to trade",
        "unfilled",
    ]
    return table("Decisions by period", head, rows)


def _curve(points: Sequence[Mapping[str, Any]]) -> Markup:
    """Growth of one unit of capital, as a return."""
    times = [_utc(point["at"]) for point in points]
    returns = {
        name: [
            (t.timestamp(), 100 * (p[name] - 1))
            for t, p in zip(times, points, strict=True)
            if p[name] is not None
        ]
        for name in _LINES
    }
    y = linear_axis(
        [0.0, *(value for line in returns.values() for _, value in line)], "return since the start, %"
    )
    label = "Return of the strategy after costs and of buy and hold over time"
    plot = Plot(label, time_axis(times[0], times[-1], "session end, UTC"), y)
    plot.span((plot.x.low, plot.x.high), (0, 0), "rule", legend="flat")
    for name, line in returns.items():
        if line:
            last = f"{_LINES[name]}: {fixed(line[-1][1], 2)} %"
            plot.line([x for x, _ in line], [v for _, v in line], f"b-{name}", title=last, legend=last)
    return plot.markup()


def _utc(moment: str) -> datetime:
    at = datetime.fromisoformat(moment)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _figures(name: str, figures: Mapping[str, Any]) -> Row:
    cells = [
        name,
        fixed(figures.get("return_pct"), 2),
        fixed(figures.get("annual_return_pct"), 2),
        fixed(figures.get("sharpe"), 2),
        between(figures.get("sharpe_low"), figures.get("sharpe_high"), 2),
        fixed(figures.get("max_drawdown_pct"), 2),
        count(figures.get("trades")),
        percent(figures.get("win_rate"), 1),
        fixed(figures.get("turnover"), 2),
        fixed(figures.get("exposure"), 3),
        fixed(figures.get("cost_pct"), 2),
        fixed(figures.get("break_even_cost_bps"), 3),
    ]
    return "", cells


def _stress(windows: Sequence[Mapping[str, Any]]) -> Markup:
    """Every window with whatever figures it has."""
    keys = sorted({key for window in windows for key in window if key not in _WINDOW})
    head = ["window", "dates", *(_unit(key) for key in keys), "remark"]
    rows: list[Row] = []
    for window in windows:
        dates = f"{window['first']} to {window['last']}"
        figures = (_number(window.get(key)) for key in keys)
        rows.append(("", [str(window["name"]), dates, *figures, str(window.get("reason") or "")]))
    return table("Stress windows", head, rows, prose=("remark",))


def _unit(key: str) -> str:
    for end, unit in (("_pct", ", %"), ("_bps", ", bps")):
        if key.endswith(end):
            return words(key.removesuffix(end)) + unit
    return words(key)


def _number(value: object) -> str:
    if isinstance(value, float):
        return fixed(value, 2)
    return UNKNOWN if value is None else str(value)
