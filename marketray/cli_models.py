"""``marketray models …``: what is registered, how it came there, and moving it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

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


@models_app.command("list")
def models_list(config: Config = None, as_json: Json = False) -> None:
    """Registered versions, newest first, with stages, aliases and verdicts."""
    from marketray.overview import row

    versions = _registry(config).list()
    print_result(versions if as_json else [row(found) for found in versions], as_json)


@models_app.command("show")
def models_show(version: Which = "champion", config: Config = None, as_json: Json = False) -> None:
    """One version: stage, family, evidence, lineage."""
    print_result(_registry(config).resolve(version), as_json)


@models_app.command("compare")
def models_compare(one: Which, other: Which, config: Config = None, as_json: Json = False) -> None:
    """Two versions side by side, and whether their figures can be compared at all."""
    from marketray.overview import compare

    found = compare(_registry(config), one, other)
    print_result(found if as_json else found["versions"], as_json)
    if not as_json:
        print_result({k: v for k, v in found.items() if k != "versions"}, as_json)


@models_app.command("summary")
def models_summary(config: Config = None, as_json: Json = False) -> None:
    """The registry in a few numbers: stages, verdicts, who holds which alias, the last move."""
    from marketray.overview import summary

    print_result(summary(_registry(config)), as_json)


@models_app.command("history")
def models_history(config: Config = None, as_json: Json = False) -> None:
    """Every move of an alias, oldest first: who, when, why, on which evidence."""
    notes = _registry(config).history()
    shown = ("at", "by", "action", "alias", "version", "previous", "verdict", "p_value", "reason")
    print_result(notes if as_json else [{key: note.get(key) for key in shown} for note in notes], as_json)


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

    print_result(promote(_registry(config), version, alias.value, force=force, reason=reason), as_json)


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
