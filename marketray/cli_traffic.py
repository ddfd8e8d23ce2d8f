"""``marketray traffic …``: which model answers how many of a running service's requests."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from marketray.cli_options import Config, Json, print_result
from marketray.errors import RefusedError, SettingsError

__all__ = ["traffic_app"]

traffic_app = typer.Typer(help="Which model answers how many of the requests.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option("--url", help="Address of the service.")]
Percent = Annotated[float | None, typer.Option(help="Percent of the requests, to 1/100.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="SLOT=VERSION or alias, such as green=7; SLOT=none empties it; repeatable."),
]

SLOTS = ("blue", "green")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LOADING = 130.0  # seconds; a version is loaded into all replicas of a slot
_LOOKS = 1.0


class _Service:
    """The service at an address, with the token of the environment."""

    def __init__(self, url: str | None, config: Any) -> None:
        from marketray.settings import load_settings

        settings = load_settings(config)
        self.url = url or f"http://{settings.serving.host}:{settings.serving.port}"

    def ask(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        from marketray.serving.client import ask

        token = os.environ.get("MARKETRAY_TOKEN", "").strip() or None
        return ask(method, self.url, path, content, token=token, timeout_seconds=_LOADING)


@traffic_app.command("show")
def traffic_show(url: Url = None, config: Config = None, as_json: Json = False) -> None:
    """The split, the models, a rollout, and what each model did on live traffic."""
    service = _Service(url, config)
    state, arms = service.ask("GET", "/traffic"), service.ask("GET", "/traffic/arms")
    if as_json:
        print_result({**state, "arms": arms}, as_json)
    else:
        _show(state)
        _show_arms(arms)


@traffic_app.command("set")
def traffic_set(
    blue: Percent = None,
    green: Percent = None,
    model: Models = None,
    sticky: Annotated[
        str | None,
        typer.Option("--sticky", help="By what a request keeps to its slot: client or instrument."),
    ] = None,
    url: Url = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Change the split and the models; a new model is loaded before it answers."""
    weights = {slot: share for slot, share in (("blue", blue), ("green", green)) if share is not None}
    changes = {"weights": weights, "models": dict(map(_placed, model or [])), "sticky": sticky}
    content = {name: value for name, value in changes.items() if value}
    if not content:
        msg = "traffic set: got no change; required: --blue, --green, --model or --sticky"
        raise SettingsError(msg, hint="for example --green 10 --model green=challenger")
    _changed(_Service(url, config).ask("PUT", "/traffic", content), as_json)


@traffic_app.command("shadow")
def traffic_shadow(
    slot: Annotated[str, typer.Argument(help="blue, green, or off.")],
    url: Url = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a slot answer the other one's requests unseen, or let none."""
    if slot not in (*SLOTS, "off"):
        msg = f"traffic shadow: got {slot!r}; required: blue, green or off"
        raise SettingsError(msg)
    content = {"shadow": None if slot == "off" else slot}
    _changed(_Service(url, config).ask("PUT", "/traffic", content), as_json)


@traffic_app.command("ab")
def traffic_ab(
    green_model: Annotated[str, typer.Option("--green-model", help="Version or alias to test.")],
    split: Annotated[str, typer.Option("--split", help="Percent of blue and of green.")] = "70,30",
    url: Url = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Split the requests between blue and another model in green, to compare them: traffic show."""
    shares = _numbers("--split", split)
    if len(shares) != 2 or abs(sum(shares) - 100) > 1e-9:
        msg = f"--split: got {split!r}; required: percent of blue and of green, 100 together"
        raise SettingsError(msg, hint="for example --split 70,30")
    content = {"weights": dict(zip(SLOTS, shares, strict=True)), "models": {"green": green_model}}
    _changed(_Service(url, config).ask("PUT", "/traffic", content), as_json)


@traffic_app.command("promote")
def traffic_promote(
    model: Annotated[str, typer.Option("--model", help="Version or alias that takes over.")] = "challenger",
    slot: Annotated[
        str | None, typer.Option("--slot", help="Where it stands (default: the slot without requests).")
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Percent, such as 1,5,25,50,100.")] = None,
    hold: Annotated[str | None, typer.Option("--hold", help="Least time on each step, such as 5m.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it ended; prints each decision.")] = False,
    url: Url = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a model take over step by step. Exit 3 where it is refused, or broken off while you wait."""
    from marketray.serving.client import AnsweredError

    rules = {
        "steps": _numbers("--steps", steps) if steps is not None else None,
        "hold_seconds": _seconds(hold) if hold is not None else None,
    }
    service = _Service(url, config)
    where = slot or _idle(service.ask("GET", "/traffic"))
    asked = {"slot": where, "model": model} | {k: v for k, v in rules.items() if v is not None}
    try:
        rollout = service.ask("POST", "/traffic/rollout", asked)
    except AnsweredError as e:
        if e.status in (409, 422):
            raise RefusedError(e.message, hint=e.hint) from e
        raise
    for line in _followed(service, rollout) if wait else ():
        if not as_json:
            typer.echo(line)
    ended = service.ask("GET", "/traffic")["rollout"] if wait else rollout
    if wait and ended["id"] != rollout["id"]:
        ended = {**rollout, "phase": "ended", "reason": f"rollout {ended['id']} came after it"}
    print_result(ended if as_json else _short(ended), as_json)
    if wait and ended["phase"] != "done":
        msg = f"rollout {rollout['id']} of version {rollout['version']}: {ended['phase']}, {ended['reason']}"
        raise RefusedError(msg, hint="the traffic is what it was before")


@traffic_app.command("rollback")
def traffic_rollback(url: Url = None, config: Config = None, as_json: Json = False) -> None:
    """Cancel the rollout; where none runs, go back to what answered before the last change."""
    _changed(_Service(url, config).ask("POST", "/traffic/rollback"), as_json)


def _followed(service: _Service, rollout: Mapping[str, Any]) -> Iterator[str]:
    """A line for each decision, as it comes, until the rollout's end."""
    told = 0
    while True:
        now = service.ask("GET", "/traffic")["rollout"]
        if now["id"] != rollout["id"]:
            return
        decisions = now["decisions"][::-1]
        for made in decisions[told:]:
            yield f"{made['at'][:19]}  {made['kind']}: {made['reason']}"
        told = len(decisions)
        if now["ended_at"] is not None:
            return
        time.sleep(_LOOKS)


def _idle(state: Mapping[str, Any]) -> str:
    """The slot that answers no requests."""
    idle = [slot for slot in SLOTS if state["weights"][slot] == 0]
    if not idle:
        msg = f"--slot is needed: both slots answer requests ({_shares(state['weights'])} %)"
        raise SettingsError(msg, hint="take one of them out with `marketray traffic set` first")
    return idle[0]


def _placed(text: str) -> tuple[str, str | None]:
    slot, _, model = text.partition("=")
    if slot not in SLOTS or not model:
        msg = f"--model: got {text!r}; required: SLOT=VERSION"
        raise SettingsError(
            msg, hint="for example --model green=7, --model green=champion or --model green=none"
        )
    return slot, None if model == "none" else model


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        msg = f"{option}: got {text!r}; required: numbers with commas between them"
        raise SettingsError(msg) from e


def _seconds(text: str) -> float:
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        msg = f"--hold: got {text!r}; required: a time such as 90s, 5m or 1h"
        raise SettingsError(msg)
    return float(found[1]) * _SECONDS[found[2]]


def _changed(state: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_result(state, as_json)
    else:
        _show({**state, "history": state["history"][:3]})


def _show(state: Mapping[str, Any]) -> None:
    slots = [
        {
            "slot": slot,
            "percent": state["weights"][slot],
            "model": state["models"][slot],
            "answers": state["answering"][slot],
            "shadow": "yes" if state["shadow"] == slot else "",
            "state": state["unwell"].get(slot, "well" if state["answering"][slot] else "empty"),
        }
        for slot in SLOTS
    ]
    print_result(slots, as_json=False)
    if state["rollout"] is not None:
        typer.echo("\nrollout")
        print_result(_short(state["rollout"]), as_json=False)
    typer.echo(f"\nchanges, newest first; requests keep to their slot by {state['sticky']}")
    rows = [
        {
            "seq": e["seq"],
            "at": e["at"][:19],
            "who": e["who"],
            "action": e["action"],
            "percent": _shares(e["weights"]),
            "models": "/".join(str(e["models"][s] or "–") for s in SLOTS),
            "reason": e["reason"],
        }
        for e in state["history"][:10]
    ]
    print_result(rows, as_json=False)


def _show_arms(arms: Mapping[str, Any]) -> None:
    typer.echo(f"\nmodels on live traffic since {arms['since'][:10]}, {arms['loss']} loss, 95 % intervals")
    rows = [
        {
            "slot": arm["slot"],
            "version": arm["version"],
            "requests": arm["requests"],
            "unseen": arm["shadow_requests"],
            "errors": arm["errors"],
            "decisions": arm["decisions"],
            "mean loss": _interval(arm["mean_loss"], arm["mean_loss_margin"]),
        }
        for arm in arms["arms"]
    ]
    print_result(rows, as_json=False)
    found = arms["comparison"]
    if found is None:
        return
    needed = "unknown" if found["needed"] is None else found["needed"]
    power = "unknown" if found["power"] is None else f"{100 * found['power']:.0f} %"
    difference = _interval(found["difference"], found["margin"])
    typer.echo(
        f"loss of {found['new']} less the other's: {difference} ({found['method']}, {found['pairs']} pairs)\n"
        f"power to find {100 * found['effect']:g} % less loss: {power}; decisions for 80 %: {needed}\n"
        f"verdict of the sequential test: {found['verdict']} (p better {found['p_better']:.3g}, worse "
        f"{found['p_worse']:.3g}; required below {found['alpha']:g})"
    )


def _interval(mean: float | None, margin: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.4g}" if margin is None else f"{mean:.4g} ± {margin:.2g}"


def _short(rollout: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("id", "phase", "slot", "version", "step", "steps", "who", "reason")
    return {name: rollout[name] for name in shown if name in rollout}


def _shares(weights: Mapping[str, float]) -> str:
    return "/".join(f"{weights[s]:g}" for s in SLOTS)
