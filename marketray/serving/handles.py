"""The service's control, reached through its Serve handle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from marketray.errors import MarketrayError
from marketray.serving.problems import ProblemError, problem
from marketray.serving.traffic import SLOTS

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from marketray.serving.control import Control

__all__ = ["ControlHandle"]

logger = logging.getLogger(__name__)

_SECONDS = 120.0  # loading a version into all replicas of a slot


class ControlHandle:
    """See `marketray.serving.http.api.TrafficControl`; raises ProblemError where control gives no answer."""

    def __init__(self, control: DeploymentHandle[Control]) -> None:
        self._control = control

    async def change(self, who: str, **changes: Any) -> None:
        """Change the traffic, see `marketray.serving.control.Control.change`."""
        await self._call("change", who, **changes)

    async def begin(self, who: str, slot: str, model: str | int, changes: dict[str, Any]) -> dict[str, Any]:
        """Begin a rollout, see `marketray.serving.control.Control.begin`."""
        begun: dict[str, Any] = await self._call("begin", who, slot, model, changes)
        return begun

    async def cancel(self, who: str, reason: str) -> dict[str, Any]:
        """End the rollout, see `marketray.serving.control.Control.cancel`."""
        ended: dict[str, Any] = await self._call("cancel", who, reason)
        return ended

    async def rollback(self, who: str) -> None:
        """Go back, see `marketray.serving.control.Control.rollback`."""
        await self._call("rollback", who)

    async def tell_slots(self) -> None:
        """Have every replica of the slots look at the store now, and the ingress ask them again."""
        await asyncio.gather(*(self._call("tell", f"slot-{slot}") for slot in SLOTS))
        await self._call("tell", "ingress")

    async def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            async with asyncio.timeout(_SECONDS):
                return await getattr(self._control, method).remote(*arguments, **named)
        except RayTaskError as e:
            if isinstance(e.cause, MarketrayError):
                raise e.cause from e
            raise
        except TimeoutError as e:
            detail = f"{method}: no answer within {_SECONDS:g} s; it may still come into force"
            raise ProblemError(problem("control-late", 504, "No answer in time", detail)) from e
        except (RayError, RayServeException) as e:
            logger.warning("control gave no answer to %s: %s", method, e)
            detail = f"{method}: control gave no answer ({type(e).__name__})"
            raise ProblemError(problem("no-control", 503, "Nobody to do it now", detail)) from e
