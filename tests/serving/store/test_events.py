"""Events: each once, in one order, without gaps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from marketray.errors import StoreError
from marketray.serving.store import Store


def test_events_are_read_in_the_order_of_their_numbers(store: Store) -> None:
    assert (store.events.last(), store.events.after(0)) == (None, [])
    before = datetime.now(UTC)
    assert store.events.publish("bar", {"close": 1.5, "news": None}, key="a") == 1
    assert store.events.publish("prediction", {"p": [1, 2]}, key="a") == 2
    assert store.events.publish("bar", {}, key="b") == 3
    got = store.events.after(0)
    assert [(e.id, e.kind, e.key, e.payload) for e in got] == [
        (1, "bar", "a", {"close": 1.5, "news": None}),
        (2, "prediction", "a", {"p": [1, 2]}),
        (3, "bar", "b", {}),
    ]
    assert before <= got[0].at <= got[2].at <= datetime.now(UTC)
    assert store.events.after(1, limit=1) == got[1:2]
    assert store.events.last() == got[2]


def test_what_several_find_out_at_once_is_published_once(store: Store) -> None:
    def publish(n: int) -> int:
        return store.events.publish("prediction", {"by": n}, key=f"decision {n % 4}")

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(publish, range(16)))
    got = store.events.after(0)
    assert [e.id for e in got] == [1, 2, 3, 4]
    assert {e.id: e.key for e in got} == {number: f"decision {n % 4}" for n, number in enumerate(numbers)}
    assert all(f"decision {e.payload['by'] % 4}" == e.key for e in got)


def test_old_events_are_deleted_and_their_numbers_do_not_come_again(store: Store) -> None:
    for n in range(5):
        store.events.publish("bar", {}, key=str(n))
    assert store.events.prune(keep=2) == 3
    assert [e.id for e in store.events.after(0)] == [4, 5]
    assert store.events.prune(keep=7) == 0
    assert store.events.prune(keep=1) == 1
    assert store.events.publish("bar", {}, key="next") == 6
    with pytest.raises(StoreError, match="keep=0; required: 1 or more"):
        store.events.prune(keep=0)
