"""What every command of ``marketray`` has: options, and how a result is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Config", "Json", "print_result"]

Config = Annotated[Path | None, typer.Option("--config", help="YAML settings file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable JSON line.")]


def print_result(value: Any, as_json: bool) -> None:
    """Print a result for a person, or as one line of JSON."""
    from marketray.console import as_plain, show

    if as_json:
        typer.echo(json.dumps(as_plain(value), sort_keys=True))
    else:
        show(value)
