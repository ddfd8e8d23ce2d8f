"""The latest decisions: each once for each model, whoever asked, from the service's own bars alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from marketray.errors import StoreError
from marketray.serving.store import Store
from marketray.serving.store.decisions import latest_decisions
from marketray.serving.store.predictions import Settlement
from marketray.serving.store.scores import Arm
from tests.serving.store.rows import START, row

BLUE, GREEN = Arm("blue", 1), Arm("green", 2)
INSTRUMENT = "SPX500_USD"


def at(minute: int) -> dict[str, object]:
    """A decision so many minutes after `START`, with a return of its own."""
    return {"decision_at": START + timedelta(minutes=minute), "predicted_return": minute / 1e4}


def test_each_decision_is_there_once_for_each_model(store: Store) -> None:
    asked = [row(f"{minute}-{k}", **at(minute)) for minute in range(6) for k in range(3)]
    unseen = [
        row(f"{m}-0", slot="green", model_version=2, shadow=True, **at(m) | {"predicted_return": 0.5})
        for m in (1, 4)
    ]
    others = [
        row("a", **at(7), bars="request"),
        row("b", **at(8), instrument="OTHER"),
        row("c", **at(9), status=503, problem="stale-bars"),
        row("d", **at(10), model_version=3),
        row("e", decision_at=None, status=500),
    ]
    store.predictions.record([*others, *asked, *unseen])
    found = latest_decisions(store.database, INSTRUMENT, [BLUE, BLUE, GREEN], 100)
    told = [((p.decision_at - START).total_seconds() / 60, p.slot, p.predicted_return) for p in found]
    assert told == [
        *((5, "blue", 5e-4), (4, "green", 0.5), (4, "blue", 4e-4), (3, "blue", 3e-4), (2, "blue", 2e-4)),
        *((1, "green", 0.5), (1, "blue", 1e-4), (0, "blue", 0.0)),
    ]
    assert [p.shadow for p in found if p.slot == "green"] == [True, True]
    assert latest_decisions(store.database, INSTRUMENT, [BLUE, GREEN], 3) == found[:3]
    assert latest_decisions(store.database, INSTRUMENT, [Arm("blue", 9)], 3) == []
    assert latest_decisions(store.database, INSTRUMENT, [], 3) == []


def test_what_came_true_comes_along(store: Store) -> None:
    store.predictions.record([row("a", **at(1))])
    (due,) = store.predictions.due(START + timedelta(hours=2))
    store.predictions.settle([Settlement(due.id, 0.002)])
    (found,) = latest_decisions(store.database, INSTRUMENT, [BLUE], 1)
    assert (found.actual_return, found.error) == (0.002, pytest.approx(1e-4 - 0.002))


@pytest.mark.parametrize("limit", [0, 1_001])
def test_as_many_as_one_page_holds(store: Store, limit: int) -> None:
    with pytest.raises(StoreError, match=f"limit={limit}; required: 1 … 1000"):
        latest_decisions(store.database, INSTRUMENT, [BLUE], limit)
