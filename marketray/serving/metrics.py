"""What the service tells Prometheus, through Ray's metrics port.

Nothing is measured on a request's path: what an ingress replica has counted anyway is passed on every few
seconds. Ray puts ``ray_`` before each name, and ``_total`` behind a counter's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from marketray.serving.rollouts.outcomes import LATENCY_BOUNDS_MS
from marketray.serving.traffic import SLOTS

if TYPE_CHECKING:
    from marketray.serving.store.traffic_log import Entry
    from marketray.serving.store.writer import WriterCounts

__all__ = ["COUNTERS", "GAUGES", "LATENCIES_MS", "ServiceMetrics", "exported", "in_slot_since"]

_ARM = ("slot", "version")

COUNTERS = {
    "marketray_requests": ("Requests that a model was asked, unseen ones too.", _ARM),
    "marketray_errors": ("Requests that it failed by its own fault.", _ARM),
    "marketray_nulls": ("Answers without a finite forecast.", _ARM),
    "marketray_latency": ("Requests that took at most le milliseconds.", (*_ARM, "le")),
    "marketray_shadow_pairs": ("Answers beside the other model's.", _ARM),
    "marketray_shadow_disagreements": ("Those of another direction.", _ARM),
    "marketray_record_shed": ("Rows that were not recorded, since the buffer was full.", ()),
    "marketray_record_failed": ("Rows that the store refused.", ()),
}
"""Help and tags by name."""

GAUGES = {
    "marketray_weight_percent": ("Share of the requests.", ("slot",)),
    "marketray_unwell": ("1 while the slot gets no requests since it does not answer.", ("slot",)),
    "marketray_model_age_seconds": ("Since the version was put into its slot.", _ARM),
    "marketray_record_waiting": ("Rows that wait to be recorded.", ()),
}
"""Help and tags by name."""

LATENCIES_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Values of `le` beside +Inf, each rounded down to a bound of the counted histogram."""

_COUNTED = {
    "marketray_requests": "requests",
    "marketray_errors": "errors",
    "marketray_nulls": "nulls",
    "marketray_shadow_pairs": "pairs",
    "marketray_shadow_disagreements": "sign_disagreements",
}


def exported() -> set[str]:
    """Names under which Prometheus knows them."""
    return {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}


def in_slot_since(history: Sequence[Entry]) -> dict[str, datetime]:
    """When the version of each slot was put there; empty slots are left out. `history`: newest first."""
    found = {}
    for slot in SLOTS:
        version = history[0].traffic.models[slot]
        if version is None:
            continue
        for entry in history:
            if entry.traffic.models[slot] != version:
                break
            found[slot] = entry.at
    return found


class ServiceMetrics:
    """The metrics of one ingress replica.

    Parameters
    ----------
    counter, gauge:
        Make a metric of a name, help and tags; by default of `ray.util.metrics`.
    """

    def __init__(
        self, counter: Callable[..., Any] | None = None, gauge: Callable[..., Any] | None = None
    ) -> None:
        if counter is None or gauge is None:
            from ray.util.metrics import Counter, Gauge

            counter, gauge = counter or Counter, gauge or Gauge
        made = [(counter, name, *told) for name, told in COUNTERS.items()]
        made += [(gauge, name, *told) for name, told in GAUGES.items()]
        self._metrics: dict[str, Any] = {
            name: make(name, description=text, tag_keys=tags) for make, name, text, tags in made
        }
        self._before: dict[tuple[str, tuple[str, ...]], float] = {}
        self._shown: set[tuple[str, str]] = set()

    def publish(
        self,
        snapshot: Mapping[str, Any],
        writer: WriterCounts,
        unwell: Mapping[str, str],
        history: Sequence[Entry],
        now: datetime,
    ) -> None:
        """Pass on what was counted.

        Parameters
        ----------
        snapshot:
            See `marketray.serving.rollouts.outcomes.Outcomes.snapshot`.
        history:
            The traffic log, newest first, as far back as ages are to reach.
        """
        for arm in snapshot["slots"]:
            tags = {"slot": arm["slot"], "version": str(arm["version"])}
            for name, counted in _COUNTED.items():
                self._count(name, arm[counted], tags)
            for limit in LATENCIES_MS:
                within = sum(arm["latency"][: bisect_right(LATENCY_BOUNDS_MS, limit * (1 + 1e-9))])
                self._count("marketray_latency", within, {**tags, "le": f"{limit:g}"})
            self._count("marketray_latency", sum(arm["latency"]), {**tags, "le": "+Inf"})
        self._count("marketray_record_shed", writer.shed, {})
        self._count("marketray_record_failed", writer.failed, {})
        self._metrics["marketray_record_waiting"].set(writer.waiting, tags={})
        traffic, ages = history[0].traffic, self._metrics["marketray_model_age_seconds"]
        for slot in SLOTS:
            self._metrics["marketray_weight_percent"].set(traffic.weights[slot] / 100, tags={"slot": slot})
            self._metrics["marketray_unwell"].set(float(slot in unwell), tags={"slot": slot})
        held = {}
        for slot, since in in_slot_since(history).items():
            held[slot, str(traffic.models[slot])] = (now - since).total_seconds()
        for slot, version in self._shown - set(held):
            ages.set(0.0, tags={"slot": slot, "version": version})  # it is gone
        for (slot, version), age in held.items():
            ages.set(age, tags={"slot": slot, "version": version})
        self._shown = set(held)

    def _count(self, name: str, total: float, tags: dict[str, str]) -> None:
        """Add what came since the last time; Ray's counters know steps, not totals."""
        key = name, tuple(tags.values())
        step = total - self._before.get(key, 0)
        if step > 0:
            self._metrics[name].inc(step, tags=tags)
        self._before[key] = total
