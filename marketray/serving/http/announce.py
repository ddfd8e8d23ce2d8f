"""New forecasts on their way to subscribers, whoever finds them first."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING

from marketray.serving.problems import ProblemError
from marketray.serving.schemas import Problem

if TYPE_CHECKING:
    from datetime import datetime

    from marketray.serving.answers import Answer
    from marketray.serving.http.api import Service
    from marketray.serving.store import Store
    from marketray.settings import Settings

__all__ = ["Announcer", "announce"]


def announce(store: Store, settings: Settings, answer: Answer) -> int:
    """Publish a forecast, once for each decision and version; gives the event's id. Blocks.

    The payload is `marketray.serving.schemas.Forecasted` and, as `bar`, the last bar's open and close.
    """
    opened = answer.decision_at - timedelta(minutes=settings.bar_interval_minutes)
    bar = {"time": opened.isoformat(), "close": answer.last_close}
    key = f"{answer.instrument}|{answer.decision_at.isoformat()}|{answer.identity.model_version}"
    return store.events.publish("forecast", {**json.loads(answer.body), "bar": bar}, key=key)


class Announcer:
    """Looks for forecasts from bars that came by another way than a request, such as an ingest."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen: tuple[datetime, int] | None = None

    async def look(self) -> None:
        """Publish the latest forecast where it is another one than at the last look."""
        try:
            answer = await self._service.latest()
        except ProblemError:
            return  # who asks for a forecast is told
        if isinstance(answer, Problem):
            return
        found = answer.decision_at, answer.identity.model_version
        if found != self._seen:
            await asyncio.to_thread(announce, self._service.store, self._service.settings, answer)
            self._seen = found
