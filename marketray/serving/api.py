"""The HTTP interface over a service, free of Ray."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import marketray
from marketray.serving.problems import MEDIA_TYPE, install
from marketray.serving.routes import forecasts, probes

if TYPE_CHECKING:
    from marketray.serving.answers import Answer
    from marketray.serving.router import Ask
    from marketray.serving.schemas import Problem
    from marketray.serving.slot import SlotStatus

__all__ = ["Service", "create_api"]


class Service(Protocol):
    """What the routes need."""

    @property
    def instrument(self) -> str:
        """The served one; the documented examples use it."""
        ...

    async def status(self, slot: str | None = None) -> SlotStatus:
        """Status of a slot, by default of the busiest; raises ProblemError where none comes in time."""
        ...

    async def predict(self, ask: Ask) -> tuple[str, Answer | Problem]:
        """The slot that answered, and its answer; a problem where there is none."""
        ...


def create_api(service: Service, lifespan: Any = None) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="marketray",
        version=marketray.__version__,
        description="Forecasts of a registered model. Errors are RFC 9457 problem documents.",
        lifespan=lifespan,
    )
    install(app)
    probes.add(app, service)
    forecasts.add(app, service)
    documented = cache(lambda: _document(app))
    app.openapi = documented  # type: ignore[method-assign]  # FastAPI's way to extend the document
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; FastAPI lists problems as application/json, which they are not."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    return schema
