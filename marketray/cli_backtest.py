"""``marketray backtest``: what trading on the forecasts would have earned, after costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketray.cli_options import Config, Json
from marketray.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from marketray.settings import Settings

__all__ = ["backtest"]

WalkForward = Annotated[
    str | None,
    typer.Option(
        "--walk-forward", metavar="expanding|rolling", help="Refit through time (default: the model on test)."
    ),
]
Refit = Annotated[
    int | None,
    typer.Option("--refit-sessions", min=1, help="Of a walk-forward: sessions that one fit forecasts."),
]
Train = Annotated[
    int | None, typer.Option("--train-sessions", min=1, help="Of a walk-forward: sessions before the first.")
]
Spread = Annotated[
    float | None, typer.Option("--spread-bps", min=0, help="Ask - bid, where bars have no quotes.")
]


def backtest(
    config: Config = None,
    walk_forward: WalkForward = None,
    refit_sessions: Refit = None,
    train_sessions: Train = None,
    spread_bps: Spread = None,
    as_json: Json = False,
) -> None:
    """Trade the best family's forecasts at the next open, after costs; never on out-of-time rows."""
    from marketray.console import as_plain
    from marketray.evaluation.walkforward_stage import run_backtest
    from marketray.pipeline import unwrapped_errors
    from marketray.settings import load_settings

    options = {
        "walk_forward": walk_forward,
        "refit_sessions": refit_sessions,
        "train_sessions": train_sessions,
        "spread_bps": spread_bps,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_settings(config, {"backtest": given} if given else None)
    _require_walk_forward(settings, given)
    with unwrapped_errors():
        done = as_plain(run_backtest(settings))
    if as_json:
        typer.echo(json.dumps(done, sort_keys=True))
    else:
        _show(done)


def _require_walk_forward(settings: Settings, given: Mapping[str, Any]) -> None:
    """Refuse options that only a walk-forward heeds, where there is none."""
    unheeded = [f"--{name.replace('_', '-')}" for name in _OF_WALK_FORWARD if name in given]
    if unheeded and settings.backtest.walk_forward is None:
        msg = (
            f"{' and '.join(unheeded)}: without a walk-forward nothing is refitted; required: --walk-forward"
        )
        raise SettingsError(msg, hint="add --walk-forward expanding (or rolling), or leave the option out")


_OF_WALK_FORWARD = ("refit_sessions", "train_sessions")


def _show(done: dict[str, Any]) -> None:
    from rich.console import Console

    from marketray.console import print_whole

    console = Console()
    fits = f", {done['windows']} fits ({done['fitted']} now)" if done["windows"] else ""
    console.print(f"{done['family']}, {done['mode']}{fits}", highlight=False)
    console.print(f"family chosen by: {done['chosen_by']}", highlight=False)
    for name, period in done["periods"].items():
        print_whole(_table(name, period))
        console.print(in_words(name, period, done["assumptions"]), highlight=False)
    for window in done["stress"]:
        figures = [_number(window[f"{who}_return_pct"]) for who in ("strategy", "buy_and_hold")]
        what = window["reason"] or f"{figures[0]} %, buying and holding {figures[1]} %"
        console.print(f"{window['name']} ({window['first']} to {window['last']}): {what}", highlight=False)
    console.print(f"all figures: {done['document']}", highlight=False, soft_wrap=True)


def _table(name: str, period: dict[str, Any]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    days = f"{period['first_decision_at'][:10]} to {period['last_decision_at'][:10]}"
    table = Table(title=f"{name}, {days}", box=SIMPLE, padding=(0, 1, 0, 0))
    holders = ("strategy", "buy_and_hold", "flat")
    for column in ("", *(who.replace("_", " ") for who in holders)):
        table.add_column(column, justify="right" if column else "left")
    for label, key in _FIGURES.items():
        table.add_row(label, *(_number(period[who][key]) for who in holders))
    return table


_FIGURES = {
    "return, %": "return_pct",
    "a year, %": "annual_return_pct",
    "Sharpe ratio": "sharpe",
    "  95 %: from": "sharpe_low",
    "  to": "sharpe_high",
    "largest drawdown, %": "max_drawdown_pct",
    "trades": "trades",
    "trades won, share": "win_rate",
    "turnover a session": "turnover",
    "exposure": "exposure",
    "costs, %": "cost_pct",
    "break-even cost, bps": "break_even_cost_bps",
}


def in_words(name: str, period: dict[str, Any], assumptions: dict[str, Any]) -> str:
    """One sentence on a period: whether the costs left anything."""
    figures, cost = period["strategy"], assumptions["mean_cost_bps"]
    if not figures["trades"]:
        threshold = f"{assumptions['threshold']['value']:g} {assumptions['threshold']['unit']}"
        return f"{name}: no trade, since no forecast reached the threshold of {threshold}"
    kept = "earned" if figures["return_pct"] > 0 else "lost"
    return (
        f"{name}: {figures['trades']} trades {kept} {abs(figures['return_pct']):.2f} % after costs; "
        f"break-even at {figures['break_even_cost_bps']:.2f} bps one way, {cost:.2f} assumed"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
