"""Errors of the library as answers: which problem tells of which error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from marketray.errors import (
    LakeError,
    MarketrayError,
    RegistryError,
    ServingError,
    SettingsError,
    StoreError,
    TrafficError,
)
from marketray.registry import UnknownVersionError
from marketray.serving.problems import problem, problem_response
from marketray.serving.store.live_bars import ConflictingBarError
from marketray.serving.store.predictions import CursorError
from marketray.serving.store.rollouts import RolloutActiveError, StaleRolloutError
from marketray.serving.store.traffic_log import StaleTrafficError

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    from marketray.serving.schemas import Problem

__all__ = ["answer_error", "problem_of"]

logger = logging.getLogger(__name__)

_TOLD: tuple[tuple[type[MarketrayError], str, int, str], ...] = (
    (StaleTrafficError, "stale-traffic", 409, "Somebody else changed the traffic first"),
    (StaleRolloutError, "stale-traffic", 409, "Somebody else changed the traffic first"),
    (RolloutActiveError, "rollout-active", 409, "A rollout moves the traffic"),
    (ConflictingBarError, "conflicting-bar", 409, "Another bar stands there"),
    (CursorError, "unusable-cursor", 422, "The cursor is none"),
    (TrafficError, "unfit-traffic", 409, "The traffic in force does not allow this"),
    (SettingsError, "unusable-traffic", 422, "The request cannot be used"),
    (UnknownVersionError, "unknown-version", 422, "There is no such model"),
    (RegistryError, "no-registry", 503, "The model registry does not answer"),
    (ServingError, "unusable-model", 422, "The model cannot be served"),
    (StoreError, "no-store", 503, "The store does not answer"),
    (LakeError, "no-lake", 503, "The lake cannot be read"),
)
"""The first line that fits tells: kind of problem, status, title."""


def problem_of(error: MarketrayError) -> Problem:
    """What a client is told of this error."""
    for kind, name, status, title in _TOLD:
        if isinstance(error, kind):
            return problem(name, status, title, error.message, hint=error.hint)
    return problem("internal", 500, "Internal error", "the service failed; its log has the cause")


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Exception handler of the application."""
    assert isinstance(error, MarketrayError)
    body = problem_of(error)
    if body.status >= 500 or body.detail != error.message:  # a client does not read the server's folders
        logger.warning("%s %s: %s", request.method, request.url.path, error)
    return problem_response(request, body)
