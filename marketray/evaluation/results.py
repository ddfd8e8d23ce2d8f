"""The result files of a run: found if they are still right, and put in place together once all are made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marketray.errors import MarketrayError

__all__ = ["drafts", "finished", "publish", "storing"]


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn a full disk or missing permissions into one clear error.

    Raises
    ------
    MarketrayError
        A file below `folder` cannot be written.
    """
    try:
        yield
    except OSError as e:
        msg = f"{folder}: the results cannot be written ({e})"
        raise MarketrayError(msg, hint="free disk space or fix the permissions, then run again") from e


def finished(path: Path, key: str) -> dict[str, Any] | None:
    """The JSON document at `path` if it was made under `key`."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if document.get("key") == key else None


@contextmanager
def drafts(folder: Path) -> Iterator[Path]:
    """A folder beside the results to write them into; gone in the end."""
    with storing(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".drafts-") as made:
        yield Path(made)


def publish(drafted: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Rename the drafts to their places in `folder`, in this order."""
    for name in names:
        (drafted / name).replace(folder / name)
