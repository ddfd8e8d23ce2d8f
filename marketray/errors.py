"""Errors that a user can act on.

Every message names what was got, what is required, the parameter, and what to do. ``hint`` holds the
last part. The command line prints the message and the hint and exits with ``exit_code``; a traceback
is shown only with ``--debug``.
"""

from __future__ import annotations

__all__ = [
    "ClusterError",
    "DataError",
    "LakeError",
    "MarketrayError",
    "ModelError",
    "QualityError",
    "RefusedError",
    "RegistryError",
    "ServingError",
    "SettingsError",
    "StoreError",
    "TrafficError",
    "TuningError",
    "VaultError",
]


class MarketrayError(Exception):
    """Base of all errors that marketray raises on purpose.

    Parameters
    ----------
    message:
        What was got and what is required, with the parameter's name.
    hint:
        What to do about it, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:  # errors travel between Ray processes
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(cls: type[MarketrayError], message: str, hint: str | None) -> MarketrayError:
    return cls(message, hint=hint)


class SettingsError(MarketrayError):
    """A setting, an option or an environment variable is wrong. Exit code 2 (bad usage)."""

    exit_code = 2


class DataError(MarketrayError):
    """Input data cannot be read or used as declared."""


class QualityError(DataError):
    """A dataset check failed; the report says what, where and what to do."""


class LakeError(MarketrayError):
    """The lake cannot be read or written."""


class VaultError(MarketrayError):
    """Out-of-time rows were asked for by something that may not read them."""


class ModelError(MarketrayError):
    """A model cannot be fitted, saved, loaded or applied to the given columns."""


class TuningError(MarketrayError):
    """Tuning ended without a usable trial."""


class RegistryError(MarketrayError):
    """The tracking server or the model registry cannot be reached or lacks what was asked for."""


class ServingError(MarketrayError):
    """The service cannot be reached, is not ready, or refused a request."""


class StoreError(MarketrayError):
    """The store of the service cannot be reached, or refuses what it was given."""


class TrafficError(MarketrayError):
    """A change of the traffic, or a rollout, does not fit the traffic in force."""


class ClusterError(MarketrayError):
    """The Ray cluster cannot be reached or cannot hold this run."""


class RefusedError(MarketrayError):
    """A request was understood and refused on evidence. Exit code 3."""

    exit_code = 3
