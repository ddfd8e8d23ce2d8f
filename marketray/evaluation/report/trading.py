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
    facts,
    fixed,
    note,
    percent,
    section,
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
_NOTE = (
    "A simulation on past prices, not a promise. Break-even cost: the cost of a trade, one way, at which "
    "nothing would be left. Doing nothing (flat) earns 0."
)


def backtest(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """Assumptions first, then the curve, the figures by period, and the stress windows."""
    parts: list[str] = [note(_NOTE), facts((words(k), _plain(v)) for k, v in value["assumptions"].items())]
    if value.get("curve"):
        parts.append(_curve(value["curve"]))
    rows = [
        _figures(f"{LABELS.get(period, words(period))}: {words(name)}", figures)
        for period, holders in value["periods"].items()
        for name, figures in holders.items()
        if isinstance(figures, Mapping)
    ]
    parts.append(table("Backtest by period", _HEAD, rows))
    if value.get("stress"):
        parts.append(_stress(value["stress"]))
    return section("backtest", "Backtest", *parts)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return UNKNOWN if value is None else words(value)


def _curve(points: Sequence[Mapping[str, Any]]) -> Markup:
    times = [_utc(point["at"]) for point in points]
    known = [p[name] for p in points for name in _LINES if p.get(name) is not None]
    y = linear_axis([0.0, *known], "return since the start, %")
    label = "Return of the strategy after costs and of buy and hold over time"
    plot = Plot(label, time_axis(times[0], times[-1], "session end, UTC"), y)
    plot.span((plot.x.low, plot.x.high), (0, 0), "rule", legend="flat")
    for name, legend in _LINES.items():
        drawn = [
            (t.timestamp(), p[name]) for t, p in zip(times, points, strict=True) if p.get(name) is not None
        ]
        if drawn:
            last = f"{legend}: {fixed(drawn[-1][1], 2)} %"
            plot.line([x for x, _ in drawn], [v for _, v in drawn], f"b-{name}", title=last, legend=last)
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
    keys = list(dict.fromkeys(k for w in windows for k in w if k not in ("name", "first", "last", "reason")))
    head = ["window", "sessions", *(_unit(key) for key in keys)]
    rows: list[Row] = [
        (
            "",
            [
                str(w["name"]),
                f"{str(w.get('first'))[:10]} to {str(w.get('last'))[:10]}",
                *(_number(w.get(key)) for key in keys),
            ],
        )
        for w in windows
    ]
    return table("Stress windows", head, rows)


def _unit(key: str) -> str:
    for end, unit in (("_pct", ", %"), ("_bps", ", bps")):
        if key.endswith(end):
            return words(key.removesuffix(end)) + unit
    return words(key)


def _number(value: object) -> str:
    if isinstance(value, float):
        return fixed(value, 2)
    return UNKNOWN if value is None else str(value)
