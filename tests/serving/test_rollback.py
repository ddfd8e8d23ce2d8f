"""Which traffic a rollback goes back to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketray.errors import TrafficError
from marketray.serving.rollouts.rollback import earlier
from marketray.serving.store.traffic_log import Entry
from marketray.serving.traffic import Traffic

AT = datetime(2024, 1, 2, tzinfo=UTC)
Change = tuple[str, int | None, int | None, int]
FIRST: Change = ("declare", 1, None, 0)


def history(*changes: Change) -> list[Entry]:
    """Entries of (action, blue's model, green's, green's weight in percent), given oldest first."""
    entries = []
    for seq, (action, blue, green, weight) in enumerate(changes, 1):
        weights = {"blue": 10_000 - 100 * weight, "green": 100 * weight}
        entries.append(Entry(seq, AT, "ann", action, "", Traffic(weights, {"blue": blue, "green": green})))
    return entries[::-1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([FIRST, ("load", 1, 2, 0), ("set", 1, 2, 10)], [1]),
        ([FIRST, ("set", 1, 2, 10), ("set", 1, 2, 100)], [2, 1]),
        # what an idle slot holds is no other traffic
        ([FIRST, ("set", 1, 2, 10), ("set", 1, 2, 0), ("set", 1, 3, 0)], [2]),
        # a finished rollout leads back to before it, not to one of its steps
        ([FIRST, ("rollout", 1, 2, 0), ("advance", 1, 2, 50), ("finish", 1, 2, 100)], [1]),
        ([FIRST, ("rollout", 1, 2, 0), ("finish", 1, 2, 100), ("set", 1, 2, 40)], [3, 1]),
        # one that was broken off is no place to go back to
        ([FIRST, ("set", 1, 2, 10), ("advance", 1, 3, 25), ("break", 1, 2, 10)], [1]),
        # the second rollback goes further back
        ([FIRST, ("set", 1, 2, 50), ("set", 1, 2, 100), ("rollback", 1, 2, 50)], [1]),
        # after it a new change counts as any other
        ([FIRST, ("set", 1, 2, 100), ("rollback", 1, 2, 0), ("set", 1, 3, 100)], [2, 1]),
    ],
)
def test_the_nearest_change_that_answered_otherwise(changes: list[Change], expected: list[int]) -> None:
    assert [entry.seq for entry in earlier(history(*changes))] == expected


@pytest.mark.parametrize(
    "changes", [[FIRST], [FIRST, ("set", 1, 2, 0)], [FIRST, ("set", 1, 2, 100), ("rollback", 1, 2, 0)]]
)
def test_nothing_to_go_back_to(changes: list[Change]) -> None:
    with pytest.raises(TrafficError, match="rollback: nothing else than the present traffic stands in"):
        earlier(history(*changes))
