"""Whether a new model may go on: rates of what went wrong, against what is allowed.

A rate over few requests is a guess, so every gate has two answers. It is *passed* where the observed rate is
allowed, and *crossed* where even the smallest rate that could have brought the counts about is not: the
exact (Clopper–Pearson) lower bound, wrong once in 20,000 looks. One error in the first request crosses
nothing at an allowed 1 %, the third of three does. In between a rollout waits.

References
----------
Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial,
Biometrika 26.
"""

from __future__ import annotations

from dataclasses import dataclass

from marketray.serving.rollouts.outcomes import Window
from marketray.settings_serving import RolloutSettings

__all__ = ["Gate", "SlotWindows", "gates", "least_rate"]

DOUBT = 5e-5
"""Probability that `least_rate` lies above the true rate."""

LEAST_SLOW_MS = 10.0
"""No answer below it is slow beside the old model's, however fast those are."""

_SLOW_SHARE = 0.01  # of the answers may take longer than the limit of a 99th percentile


@dataclass(frozen=True)
class SlotWindows:
    """What the slots of the new and of the old model did over the same span."""

    new: Window
    old: Window


@dataclass(frozen=True)
class Gate:
    """One rule and what it sees: `count` of `total` went wrong, the share `allowed` may.

    `words` says what went wrong, e.g. ``requests failed``.
    """

    name: str
    words: str
    count: int
    total: int
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the observed rate is allowed."""
        return self.count <= self.allowed * self.total

    @property
    def crossed(self) -> bool:
        """Whether the true rate is surely higher than allowed."""
        return least_rate(self.count, self.total) > self.allowed

    def __str__(self) -> str:
        seen = f"{self.count} of {self.total} {self.words}; allowed {100 * self.allowed:.3g} %"
        surely = f", surely more than {100 * least_rate(self.count, self.total):.3g} %"
        return seen + surely if self.crossed else seen


def least_rate(count: int, total: int) -> float:
    """Lower bound of a rate of which `count` in `total` were seen: at any lower one so many are a wonder.

    The rate at which `count` or more come about with the probability `DOUBT`; 0 where `count` is 0.
    """
    from scipy.special import betaincinv

    return float(betaincinv(count, total - count + 1, DOUBT)) if count else 0.0


def gates(windows: SlotWindows, rules: RolloutSettings) -> tuple[Gate, ...]:
    """All gates over one span.

    Where the old model answered `rules.min_requests` it lowers the limits of failures and latency; where more
    of its own answers are too slow than may be, as while the machine is busy, as large a part may.
    """
    new, old = windows.new, windows.old
    failed, slow_ms, slow_share = rules.max_error_rate, rules.max_p99_ms, _SLOW_SHARE
    if old.requests >= rules.min_requests and old.error_rate is not None and old.p99_ms is not None:
        failed = min(failed, old.error_rate + rules.error_excess)
        slow_ms = min(slow_ms, max(LEAST_SLOW_MS, rules.max_p99_ratio * old.p99_ms))
        slow_share = max(slow_share, old.slower_than(slow_ms) / old.requests)
    slow = new.slower_than(slow_ms)
    return (
        Gate("error_rate", "requests failed", new.errors, new.requests, failed),
        Gate("null_rate", "answers held no forecast", new.nulls, new.requests, rules.max_null_rate),
        Gate("p99_ms", f"answers took over {slow_ms:.3g} ms", slow, new.requests, slow_share),
        Gate(
            "disagreement",
            "forecasts point another way than the old model's",
            new.sign_disagreements,
            new.pairs,
            rules.max_disagreement,
        ),
    )
