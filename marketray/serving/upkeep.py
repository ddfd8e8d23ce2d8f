"""What the store may forget, so that it does not grow with the time that a service runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from marketray.lake import Lake
from marketray.serving.state import read_tail

if TYPE_CHECKING:
    from marketray.serving.store import Store
    from marketray.settings import Settings

__all__ = ["KEPT_EVENTS", "Pruned", "prune", "prune_record"]

KEPT_EVENTS = 10_000
"""As many events as a subscriber may be behind."""

_OVERLAP = timedelta(days=7)
_LABELS = timedelta(days=30)  # that an answer waits longer for what came true


class Pruned(TypedDict):
    """Rows that were deleted."""

    bars: int
    events: int


def prune(store: Store, settings: Settings) -> Pruned:
    """Delete the live bars that the lake has had for a week, and all but the newest `KEPT_EVENTS` events.

    A live bar counts only where it comes after the lake's last bar; the week is for people who compare the
    two. Without a lake no bar is deleted. Rollouts and changes of the traffic are kept for ever.

    Raises
    ------
    StoreError, LakeError
        The store or the lake cannot be read or written; nothing more is deleted then.
    """
    name = settings.instrument
    last = read_tail(Lake(settings.lake_uri), name, 1, interval=timedelta())
    bars = 0 if last.is_empty() else store.bars.prune(last["time"][0] - _OVERLAP, name)
    return {"bars": bars, "events": store.events.prune(KEPT_EVENTS)}


def prune_record(store: Store, settings: Settings, now: datetime | None = None) -> int:
    """Delete a thousand answers that are older than `serving.record_days`; how many, 0: no more are.

    One whose label has not arrived is kept 30 days longer, and what was answered since the running rollout
    began is kept until its end: its evidence stands on all of it.

    Parameters
    ----------
    now:
        The time, UTC; None: the computer's.

    Raises
    ------
    StoreError, TrafficError
        The store cannot be read or written, or the rollout that runs was saved by another release.
    """
    days = settings.serving.record_days
    if days == 0:
        return 0
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    running = store.rollouts.active()
    if running is not None:
        before = min(before, running.rollout.started_at)
    return store.predictions.prune(before, awaiting_before=before - _LABELS)
