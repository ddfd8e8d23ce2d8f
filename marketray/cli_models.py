"""``marketray models …``: what is registered, how it came there, and moving it."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketray.cli_options import Config, Json, print_result

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.registry import Registry

__all__ = ["models_app"]

models_app = typer.Typer(help="Registered models.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="Version number or alias.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the record.")]


class _Alias(Enum):
    champion = "champion"
    challenger = "challenger"
    shadow = "shadow"


def _registry(config: Path | None) -> Registry:
    from marketray.registry import Registry
    from marketray.settings import load_settings

    return Registry(load_settings(config))


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A version's row in 80 characters."""
    shown = {key: row[key] for key in ("version", "stage", "aliases", "family", "verdict")}
    shown["r2_oos_pct"] = None if row["r2_oos"] is None else f"{100 * row['r2_oos']:.2f}"
    shown["p_value"] = None if row["p_value"] is None else f"{row['p_value']:.2g}"
    return shown


def _line(note: dict[str, Any]) -> dict[str, Any]:
    """A move in one line: to the minute, without its lineage."""
    shown = ("by", "action", "alias", "version", "previous", "verdict", "reason")
    return {"at": note["at"][:16], **{key: note.get(key) for key in shown}}


@models_app.command("list")
def models_list(config: Config = None, as_json: Json = False) -> None:
    """Registered versions, newest first, with stages, aliases and verdicts.

    Of the model that the settings name; without --config and tracking.model_name, of every registered model.
    """
    from marketray.overview import row
    from marketray.registry import Registry
    from marketray.settings import load_settings

    settings = load_settings(config)
    registry = Registry(settings)
    one = config is not None or settings.tracking.model_name is not None
    found = {name: Registry(settings, name).list() for name in ([registry.name] if one else registry.names())}
    if as_json:
        print_result([version for versions in found.values() for version in versions], as_json)
        return
    for name, versions in found.items():
        typer.echo(name if versions else f"{name}: no version is registered")
        if versions:
            print_result([_short(row(version)) for version in versions], as_json)
    if not found:
        typer.echo("no model is registered yet; `marketray run` registers the first")


@models_app.command("show")
def models_show(version: Which = "champion", config: Config = None, as_json: Json = False) -> None:
    """One version: stage, family, evidence, lineage."""
    found = _registry(config).resolve(version)
    if not as_json:  # the evidence is shown by itself
        found = replace(found, tags={k: v for k, v in found.tags.items() if k != "marketray.evidence"})
    print_result(found, as_json)


@models_app.command("compare")
def models_compare(one: Which, other: Which, config: Config = None, as_json: Json = False) -> None:
    """Two versions side by side, and whether their figures can be compared at all."""
    from marketray.overview import compare

    found = compare(_registry(config), one, other)
    if as_json:
        print_result(found, as_json)
        return
    first, second = found.pop("versions")
    print_result([{"": key, "first": first[key], "second": second[key]} for key in first], as_json)
    print_result(found, as_json)


@models_app.command("summary")
def models_summary(config: Config = None, as_json: Json = False) -> None:
    """The registry in a few numbers: stages, verdicts, who holds which alias, the last move."""
    from marketray.overview import summary

    found = summary(_registry(config))
    if as_json:
        print_result(found, as_json)
        return
    holders, last = found.pop("aliases"), found.pop("last_move")
    print_result({**found, "last_move": _line(last) if last else None}, as_json)
    if holders:
        print_result([_short(held) for held in holders.values()], as_json)


@models_app.command("history")
def models_history(config: Config = None, as_json: Json = False) -> None:
    """Every move of an alias, oldest first: who, when, why, on which evidence."""
    notes = _registry(config).history()
    print_result(notes if as_json else [_line(note) for note in notes], as_json)


@models_app.command("promote")
def models_promote(
    version: Which,
    alias: Annotated[_Alias, typer.Option("--alias", help="What to make it.")] = _Alias.champion,
    force: Annotated[
        bool, typer.Option("--force", help="Against the gate's verdict; needs --reason.")
    ] = False,
    reason: Reason = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion, challenger or shadow. Exit 3 where the gate's verdict forbids it."""
    from marketray.promotion import promote

    note = promote(_registry(config), version, alias.value, force=force, reason=reason)
    if as_json or note["changed"]:
        print_result(note, as_json)
    else:
        typer.echo(f"nothing changed: version {note['version']} is the {alias.value} already")
        typer.echo(f"since {note['at'][:16]}, {note.get('action', 'moved')} by {note['by']}")


@models_app.command("rollback")
def models_rollback(
    version: Annotated[
        int | None, typer.Option("--version", help="A former champion (default: the one before).")
    ] = None,
    reason: Reason = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make the champion before the present one, or a given former one, the champion again."""
    from marketray.promotion import roll_back

    print_result(roll_back(_registry(config), version, reason=reason), as_json)
