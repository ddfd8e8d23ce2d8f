"""What was said before, and the news that models see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query

from marketray.lake import Lake
from marketray.sentiment.recent import recent_news
from marketray.sentiment.store import stored_scorer
from marketray.serving.http.routes.documented import problems
from marketray.serving.http.schemas_records import News, NewsArticle, RecordedPrediction, RecordedPredictions
from marketray.serving.schemas import UtcTime
from marketray.serving.store.predictions import MOST_ROWS, Wanted

if TYPE_CHECKING:
    from fastapi import FastAPI

    from marketray.serving.http.api import Service

__all__ = ["add"]

_MOST_NEWS = 200

Instrument = Annotated[str | None, Query(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
Version = Annotated[int | None, Query(ge=1, lt=2**31, description="Of the registry.")]
From = Annotated[
    UtcTime | None, Query(alias="from", description="Asked at or after this time, ISO 8601 with zone.")
]
To = Annotated[UtcTime | None, Query(description="Asked before this time, ISO 8601 with zone.")]
Cursor = Annotated[str | None, Query(max_length=100, description="The next_cursor of the page before.")]


def add(app: FastAPI, service: Service) -> None:
    """GET /predictions/history and /news/recent."""

    @app.get("/predictions/history", summary="Recorded answers, newest first", responses=problems(422, 503))
    async def history(
        instrument: Instrument = None,
        slot: Literal["blue", "green"] | None = None,
        version: Version = None,
        from_: From = None,
        to: To = None,
        shadow: bool | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
        cursor: Cursor = None,
    ) -> RecordedPredictions:
        wanted = Wanted(instrument, slot, version, shadow, from_, to)
        page, following = await asyncio.to_thread(
            service.store.predictions.history, wanted, limit=limit, cursor=cursor
        )
        predictions = [RecordedPrediction.model_validate(found) for found in page]
        return RecordedPredictions(predictions=predictions, next_cursor=following)

    @app.get("/news/recent", summary="Scored articles, newest first", responses=problems(422, 503))
    async def news(
        limit: Annotated[int, Query(ge=1, le=_MOST_NEWS)] = 20, instrument: Instrument = None
    ) -> News:
        settings = service.settings
        if instrument is not None and instrument not in (settings.instrument, *settings.panel):
            return News(instrument=instrument, scorer=None, articles=[])
        return await asyncio.to_thread(_news, service, instrument or settings.instrument, limit)


def _news(service: Service, instrument: str, limit: int) -> News:
    """The newest scored articles; blocks."""
    lake = Lake(service.settings.lake_uri)
    found = recent_news(lake, instrument, limit)
    months = sorted({f"{at:%Y-%m}" for at in found["available_at"]})
    scorer = stored_scorer(lake, instrument, months) if months else None
    articles = [NewsArticle.model_validate(row) for row in found.to_dicts()]
    return News(instrument=instrument, scorer=scorer, articles=articles)
