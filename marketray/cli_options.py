"""Options that every command of ``marketray`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Config", "Json"]

Config = Annotated[Path | None, typer.Option("--config", help="YAML settings file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable JSON line.")]
