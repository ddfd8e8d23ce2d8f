"""A slot as the ingress reaches it: through its Serve handle, its latest forecast kept for a moment."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from marketray.serving.answers import Answer
from marketray.serving.router import SlotError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    import polars as pl
    from ray.serve.handle import DeploymentHandle

    from marketray.serving.answers import Batch
    from marketray.serving.schemas import Problem
    from marketray.serving.slot import Slot

__all__ = ["HandleClient"]

logger = logging.getLogger(__name__)


class HandleClient:
    """A slot reached through its Serve handle, see `marketray.serving.router.SlotClient`.

    The forecast from the slot's latest bar changes with the next bar only, and a call of a replica costs
    several times what the rest of a request does. So `look` asks now and then, and in between `predict`
    answers with what was found.

    Parameters
    ----------
    keep_seconds:
        How long a forecast is answered after it was asked for.
    clock:
        Seconds, from any moment.
    """

    def __init__(
        self, slot: DeploymentHandle[Slot], keep_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handle = slot
        self._keep_seconds, self._clock = keep_seconds, clock
        self._kept: Answer | None = None
        self._ends = 0.0
        self._forgotten = 0

    async def look(self) -> Answer | Problem:
        """Ask for the forecast from the latest bar, and keep it; raises SlotError."""
        asked, forgotten = self._clock(), self._forgotten
        found: Answer | Problem = await self.call("predict", None, None)
        if forgotten == self._forgotten:
            self._kept = found if isinstance(found, Answer) else None
            self._ends = asked + self._keep_seconds
        return found

    def forget(self) -> None:
        """Ask the slot again: its bars or its model are others."""
        self._kept = None
        self._forgotten += 1

    async def predict(self, instrument: str | None, bars: pl.DataFrame | None) -> Answer | Problem:
        """Its answer; from the latest bar the one that is kept, where there is one."""
        kept = self._kept
        if (
            kept is not None
            and bars is None
            and instrument in (None, kept.instrument)
            and self._clock() < self._ends
        ):
            return kept
        found: Answer | Problem = await self.call("predict", instrument, bars)
        return found

    async def predict_features(self, columns: Sequence[str], rows: npt.NDArray[Any]) -> Batch | Problem:
        """What its model says of rows of features."""
        found: Batch | Problem = await self.call("predict_features", columns, rows)
        return found

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call one replica; raises SlotError where none answers."""
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except BackPressureError as e:
            raise SlotError.full() from e
        except RayTaskError as e:
            logger.exception("a slot failed on %s", method)
            raise SlotError.bug(type(e.cause).__name__) from e
        except (RayError, RayServeException) as e:
            raise SlotError.unavailable(type(e).__name__) from e
