"""The same model behind nothing but FastAPI: no router, no other slot, no record of the answers.

``python -m benchmarks.rivals.plain_api --config FILE --port N`` serves it by uvicorn alone.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response

from marketray.registry import Registry
from marketray.serving.problems import ProblemError, install, request_id_of
from marketray.serving.schemas import PredictRequest, PredictResponse, Problem
from marketray.serving.slot import Slot
from marketray.settings import load_settings

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["plain_api"]


def plain_api(slot: Slot) -> FastAPI:
    """POST /predict and GET /ready on the slot's model, in this process."""
    app = FastAPI()
    install(app)

    @app.get("/ready")
    async def ready() -> dict[str, int | None]:
        return {"model_version": await slot.version()}

    @app.post("/predict", response_model=PredictResponse)
    async def predict(request: Request, body: PredictRequest) -> Response:
        started = time.perf_counter()
        answer = await slot.predict(body.instrument, None)
        if isinstance(answer, Problem):
            raise ProblemError(answer)
        document = answer.document(request_id_of(request), (time.perf_counter() - started) * 1e3)
        return Response(document, media_type="application/json")

    return app


def own_slot(settings: Settings) -> Slot:
    """The blue slot in this process, without Ray."""
    return Slot("blue", settings, lambda version: Registry(settings).download(version))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = plain_api(own_slot(load_settings(arguments.config)))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
