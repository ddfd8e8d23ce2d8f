"""The HTTP interface over a service, free of Ray."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi

import marketray
from marketray.errors import MarketrayError
from marketray.serving.http.failures import answer_error
from marketray.serving.http.limits import BodyLimit
from marketray.serving.http.routes import (
    arms,
    bars,
    forecasts,
    monitoring,
    page,
    probes,
    recent,
    records,
    stream,
    traffic,
)
from marketray.serving.problems import MEDIA_TYPE, install

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketray.features.online import Refusal
    from marketray.serving.answers import Answer, Batch
    from marketray.serving.http.auth import Token
    from marketray.serving.router import Ask
    from marketray.serving.schemas import Problem
    from marketray.serving.slot import SlotStatus
    from marketray.serving.store import Store
    from marketray.settings import Settings

__all__ = ["Service", "create_api"]


class TrafficControl(Protocol):
    """What changes the traffic; all of it raises MarketrayError where it cannot, see `failures`."""

    async def change(self, who: str, **changes: Any) -> None:
        """`weights` in 1/100 % by slot, `models` by slot, `shadow`, `sticky`."""
        ...

    async def begin(self, who: str, slot: str, model: str | int, changes: dict[str, Any]) -> dict[str, Any]:
        """Begin a rollout; `changes` are rules. The rollout, see `marketray.serving.rollouts.journal`."""
        ...

    async def cancel(self, who: str, reason: str) -> dict[str, Any]:
        """End the rollout that is running."""
        ...

    async def rollback(self, who: str) -> None:
        """Cancel the rollout that is running, else go back to what answered before."""
        ...

    async def tell_slots(self) -> None:
        """Have every replica of the slots look at the store now, and the ingress ask them again."""
        ...


class Service(Protocol):
    """What the routes need.

    Attributes
    ----------
    settings:
        Their `instrument` is the served one; the documented examples use it.
    token:
        What callers must show that change something; None: nobody may.
    """

    settings: Settings
    store: Store
    token: Token | None

    @property
    def control(self) -> TrafficControl:
        """What changes the traffic."""
        ...

    @property
    def unwell(self) -> dict[str, str]:
        """Slots that get no traffic while another can answer, with the reason."""
        ...

    async def versions(self) -> dict[str, int | None]:
        """The version that each slot answers with now; None where it gives no answer."""
        ...

    async def status(self, slot: str | None = None) -> SlotStatus:
        """Status of a slot, by default of the busiest; raises ProblemError where none comes in time."""
        ...

    async def predict(self, ask: Ask) -> tuple[str, Answer | Problem]:
        """The slot that answered, and its answer; a problem where there is none."""
        ...

    async def predict_features(self, ask: Ask) -> tuple[str, Batch | Problem]:
        """The same for rows of features."""
        ...

    async def latest(self) -> Answer | Problem:
        """The busiest slot's forecast, neither counted nor recorded; raises ProblemError."""
        ...

    async def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        """Why each of the bars cannot be appended; a problem where there is no state to append to."""
        ...


def create_api(service: Service, lifespan: Any = None) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="marketray",
        version=marketray.__version__,
        description="Forecasts of a registered model. Errors are RFC 9457 problem documents.",
        lifespan=lifespan,
    )
    serving = service.settings.serving
    batch = {"/predict/batch": round(serving.max_batch_mb * 1e6)}
    app.add_middleware(BodyLimit, most=round(serving.max_body_mb * 1e6), more=batch)
    if serving.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=serving.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "X-Client-Key"],
        )
    install(app)
    app.add_exception_handler(MarketrayError, answer_error)
    traffic.add(app, service)
    arms.add(app, service)
    probes.add(app, service)
    page.add(app)
    recent.add(app, service)
    forecasts.add(app, service)
    bars.add(app, service)
    records.add(app, service)
    monitoring.add(app, service)
    stream.add(app, service)
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
