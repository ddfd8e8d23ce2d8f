"""When a rollout's rule was crossed, by the record of the answers alone, and what came after that."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from scipy.stats import binomtest

from marketray.serving.rollouts.rollout import Plan
from marketray.serving.store import Store
from marketray.serving.store.predictions import Prediction, Wanted

__all__ = ["Removal", "removal"]

_RECORDED = timedelta(seconds=2.6)  # the longest attempt, and what the record is behind


@dataclass(frozen=True)
class Removal:
    """How the last rollout was broken off; times are UTC.

    Attributes
    ----------
    reason:
        As it was recorded.
    answers:
        What the new model was asked in its last step.
    crossed_at:
        End of the answer with which more had failed, held nothing or were slow than may; None: of none.
    decided_at:
        Of the decision to break off.
    last_asked_at:
        When the last request came that the new model was asked.
    """

    reason: str
    answers: int
    crossed_at: datetime | None
    decided_at: datetime
    last_asked_at: datetime

    @property
    def out_at(self) -> datetime:
        """From when on the new model had no part any more."""
        return max(self.decided_at, self.last_asked_at)


def removal(store: Store) -> Removal:
    """The end of the last rollout, from what the store knows once all answers are recorded."""
    rollout = store.rollouts.history(limit=1)[0].rollout
    assert rollout.phase == "broken", rollout
    assert rollout.ended_at is not None
    plan, ended = rollout.plan, rollout.ended_at
    time.sleep(max(0.0, (ended + _RECORDED - datetime.now(UTC)).total_seconds()))
    rows = sorted(_rows(store, Wanted(from_at=rollout.entered_at)), key=_end)
    asked = [row.at for row in rows if _is_new(row, plan)]
    return Removal(rollout.reason, len(asked), _crossed_at(rows, plan), ended, max(asked))


def _rows(store: Store, wanted: Wanted) -> Iterable[Prediction]:
    page, cursor = store.predictions.history(wanted, limit=1_000)
    yield from page
    while cursor is not None:
        page, cursor = store.predictions.history(wanted, limit=1_000, cursor=cursor)
        yield from page


def _crossed_at(rows: Iterable[Prediction], plan: Plan) -> datetime | None:
    """By scipy's exact interval of a proportion; the old model's slow answers make slow ones allowed."""
    rules = plan.rules
    asked, slow, failed, nulls = {True: 0, False: 0}, {True: 0, False: 0}, 0, 0
    for row in rows:
        new = _is_new(row, plan)
        asked[new] += 1
        slow[new] += (row.latency_ms or 0.0) > rules.max_p99_ms
        nulls += new and row.problem == "no-forecast"
        failed += new and row.status >= 500 and row.problem != "no-forecast"
        may_be_slow = max(0.01, slow[False] / asked[False]) if asked[False] >= rules.min_requests else 0.01
        wrong = ((failed, rules.max_error_rate), (nulls, rules.max_null_rate), (slow[True], may_be_slow))
        if new and any(_surely(count, asked[True]) > may for count, may in wrong):
            return _end(row)
    return None


def _is_new(row: Prediction, plan: Plan) -> bool:
    return (row.slot, row.model_version) == (plan.slot, plan.version)


def _end(row: Prediction) -> datetime:
    return row.at + timedelta(milliseconds=row.latency_ms or 0.0)


def _surely(count: int, total: int) -> float:
    return float(binomtest(count, total).proportion_ci(1 - 1e-4, "exact").low) if count else 0.0
