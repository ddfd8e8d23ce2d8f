"""Which traffic to go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from marketray.errors import TrafficError
from marketray.serving.store.traffic_log import DECLARE

if TYPE_CHECKING:
    from marketray.serving.store.traffic_log import Entry
    from marketray.serving.traffic import Traffic

__all__ = ["ROLLBACK", "earlier", "serving"]

ROLLBACK = "rollback"
"""Action of the entries that went back."""

_SETTLED = (DECLARE, "set", "finish")
"""Actions whose traffic somebody wanted to stay; the others are steps on the way, or ways back."""


def serving(traffic: Traffic) -> Mapping[str, tuple[int, int | None]]:
    """Weight and version of the slots that answer; what an idle slot holds makes no difference to clients."""
    return {s: (weight, traffic.models[s]) for s, weight in traffic.weights.items() if weight}


def earlier(history: Sequence[Entry]) -> list[Entry]:
    """The entries to go back to, the nearest first; each answers with another model or split than now.

    Steps of a rollout are left out, so its end leads back to before it. After a rollback the next one goes
    further back, not forth again.

    Parameters
    ----------
    history:
        The log, newest first.

    Raises
    ------
    TrafficError
        There is none.
    """
    now = serving(history[0].traffic)
    settled = [e for e in history if e.action in _SETTLED]
    if history[0].action == ROLLBACK:
        reached = next((i for i, e in enumerate(settled) if serving(e.traffic) == now), len(settled))
        settled = settled[reached:]
    found: list[Entry] = []
    for entry in settled:
        if serving(entry.traffic) not in [now, *(serving(e.traffic) for e in found)]:
            found.append(entry)
    if not found:
        msg = f"rollback: nothing else than the present traffic stands in the last {len(history)} changes"
        raise TrafficError(msg, hint="set the traffic: PUT /traffic, or `marketray traffic set`")
    return found
