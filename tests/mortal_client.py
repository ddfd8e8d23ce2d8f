"""An MLflow client that dies at a chosen write, and what the registry then holds."""

from __future__ import annotations

from typing import Any

from marketray.registry import Registry
from marketray.settings import Settings
from marketray.tracking import connect_tracking

_WRITES = ("create_", "delete_", "log_", "rename_", "set_", "transition_", "update_")


class Killed(BaseException):
    """Stands for the end of the process."""


class MortalClient:
    """Passes everything on to `client` and dies before its `last`-th write.

    What is stored then is what is stored after the write before, so all these together are all moments.
    """

    def __init__(self, client: Any, last: int) -> None:
        self._client, self._last = client, last
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not name.startswith(_WRITES):
            return method

        def write(*args: Any, **kwargs: Any) -> Any:
            if self.writes + 1 == self._last:
                raise Killed
            self.writes += 1
            return method(*args, **kwargs)

        return write


def native_aliases(settings: Settings) -> dict[str, int]:
    """The aliases as MLflow has them."""
    found = connect_tracking(settings).get_registered_model(settings.model_name)
    return {alias: int(version) for alias, version in found.aliases.items()}


def champion_of(settings: Settings) -> int | None:
    """The champion as the registry says."""
    champion = Registry(settings).champion()
    return None if champion is None else champion.version
