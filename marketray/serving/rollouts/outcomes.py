"""What the slots did, counted: the numbers that a rollout's gates see.

Every process that answers requests counts into an `Outcomes` of its own, from 0 when it starts, and only up.
A `Window` is the difference of two snapshots over all processes. A process that vanished drops out, and one
that is new counts from 0, so no window ever holds a negative count.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LATENCY_BOUNDS_MS", "Outcomes", "Window"]

LATENCY_BOUNDS_MS = tuple(10 ** (k / 20 - 1) for k in range(121))
"""Upper bounds of the latency histogram: 0.1 ms … 100 s, 20 a decade, each 12.2 % above the one before."""

_COUNTS = ("requests", "errors", "nulls", "pairs", "sign_disagreements")
_SUMS = ("absolute_difference", "squared_difference")


@dataclass
class _Counters:
    """Of one slot and version in one process."""

    requests: int = 0
    errors: int = 0
    nulls: int = 0
    pairs: int = 0
    sign_disagreements: int = 0
    absolute_difference: float = 0.0
    squared_difference: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_COUNTS, *_SUMS)} | {"latency": list(self.latency)}


class Outcomes:
    """Counters of one process, by slot and registry version.

    Parameters
    ----------
    process:
        Name of this process; another one after every start.
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self._counters: defaultdict[tuple[str, int], _Counters] = defaultdict(_Counters)

    def answered(self, slot: str, version: int, latency_ms: float, *, null: bool = False) -> None:
        """A slot answered, seen or as a shadow. `null`: neither a finite return nor a finite probability."""
        counters = self._of(slot, version, latency_ms)
        counters.nulls += null

    def failed(self, slot: str, version: int, latency_ms: float) -> None:
        """A slot failed by its own fault: an exception, a timeout or a 5xx; a 4xx is the caller's."""
        counters = self._of(slot, version, latency_ms)
        counters.errors += 1

    def paired(self, slot: str, version: int, shadow: float, served: float) -> None:
        """A shadow answered a request that the other slot was asked.

        Both values are signed: predicted returns, or P(up) − ½. Signs disagree where one value lies above,
        below or at 0 and the other does not. A pair with a value that is not finite is not counted.
        """
        if not (math.isfinite(shadow) and math.isfinite(served)):
            return
        counters = self._counters[slot, version]
        difference = shadow - served
        counters.pairs += 1
        counters.absolute_difference += abs(difference)
        counters.squared_difference += difference * difference
        counters.sign_disagreements += _sign(shadow) != _sign(served)

    def snapshot(self) -> dict[str, Any]:
        """The counts so far as plain JSON values: `process`, and in `slots` an entry a slot and version."""
        slots = [
            {"slot": slot, "version": version, **counters.to_json()}
            for (slot, version), counters in self._counters.items()
        ]
        return {"process": self.process, "slots": slots}

    def _of(self, slot: str, version: int, latency_ms: float) -> _Counters:
        counters = self._counters[slot, version]
        counters.requests += 1
        counters.latency[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1
        return counters


@dataclass(frozen=True)
class Window:
    """What one slot and version did between two moments, over all processes.

    Rates are None where nothing was counted.
    """

    requests: int = 0
    errors: int = 0
    nulls: int = 0
    pairs: int = 0
    sign_disagreements: int = 0
    absolute_difference: float = 0.0
    squared_difference: float = 0.0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_MS) + 1)

    @classmethod
    def between(
        cls,
        previous: Iterable[Mapping[str, Any]],
        now: Iterable[Mapping[str, Any]],
        slot: str,
        version: int,
    ) -> Window:
        """Difference of snapshots, one a process, in any order."""
        before = {s["process"]: _entry(s, slot, version) for s in previous}
        sums = _Counters()
        for snapshot in now:
            new = _entry(snapshot, slot, version)
            old = before.get(snapshot["process"], _NOTHING)
            for name in (*_COUNTS, *_SUMS):
                setattr(sums, name, getattr(sums, name) + new[name] - old[name])
            for i, (a, b) in enumerate(zip(new["latency"], old["latency"], strict=True)):
                sums.latency[i] += a - b
        counted = sums.to_json()
        return cls(**{**counted, "latency": tuple(counted["latency"])})

    @property
    def error_rate(self) -> float | None:
        """Share of the requests that the slot failed."""
        return self.errors / self.requests if self.requests else None

    @property
    def null_rate(self) -> float | None:
        """Share of the requests that were answered without a finite forecast."""
        return self.nulls / self.requests if self.requests else None

    @property
    def disagreement(self) -> float | None:
        """Share of the shadow pairs whose signs differ."""
        return self.sign_disagreements / self.pairs if self.pairs else None

    @property
    def mean_absolute_difference(self) -> float | None:
        """Of the two answers of a shadow pair, in units of the forecast."""
        return self.absolute_difference / self.pairs if self.pairs else None

    @property
    def p99_ms(self) -> float | None:
        """Bound of the histogram that 99 % of the latencies do not exceed (nearest rank), up to 12.2 % high.

        The last bound where it lies beyond that.
        """
        if not self.requests:
            return None
        rank, seen = math.ceil(0.99 * self.requests), 0
        for count, bound in zip(self.latency, LATENCY_BOUNDS_MS, strict=False):
            seen += count
            if seen >= rank:
                return bound
        return LATENCY_BOUNDS_MS[-1]

    def slower_than(self, limit_ms: float) -> int:
        """How many requests surely took longer than `limit_ms`: the bars that begin at or above it."""
        return sum(self.latency[bisect_left(LATENCY_BOUNDS_MS, limit_ms) + 1 :])


_NOTHING: dict[str, Any] = _Counters().to_json()


def _entry(snapshot: Mapping[str, Any], slot: str, version: int) -> Mapping[str, Any]:
    return next((e for e in snapshot["slots"] if (e["slot"], e["version"]) == (slot, version)), _NOTHING)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
