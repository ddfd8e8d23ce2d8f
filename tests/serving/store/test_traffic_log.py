"""The traffic log: one order of changes, whoever makes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from marketray.serving.store.database import Database
from marketray.serving.store.traffic_log import StaleTrafficError, TrafficLog
from tests.serving.store.programs import split


def test_the_newest_change_is_in_force(database: Database) -> None:
    log = TrafficLog(database)
    assert (log.current(), log.history()) == (None, [])
    before = datetime.now(UTC)
    first = log.append(split(0), who="ann", action="set", reason="first", expect_seq=0)
    second = log.append(split(500).changed(shadow="green"), who="bob", action="shadow", expect_seq=1)
    assert (first.seq, first.who, first.action, first.reason) == (1, "ann", "set", "first")
    assert before <= first.at <= second.at <= datetime.now(UTC)
    assert log.current() == second == TrafficLog(database).current()
    assert second.traffic == split(500).changed(shadow="green")
    third = log.append(split(0), who="ann", action="rollback")
    assert log.history() == [third, second, first]
    assert log.history(limit=1, before_seq=3) == [second]


def test_a_change_decided_on_an_older_state_is_refused(database: Database) -> None:
    log = TrafficLog(database)
    log.append(split(0), who="ann", action="set")
    with pytest.raises(StaleTrafficError, match=r"expect_seq=0, but the newest .* is 1 \(set by ann, 20"):
        log.append(split(10), who="bob", action="set", expect_seq=0)
    assert [e.seq for e in log.history()] == [1]


def test_of_many_changes_of_one_state_exactly_one_wins(database: Database) -> None:
    log = TrafficLog(database)
    log.append(split(0), who="start", action="set")

    def change(n: int) -> int | None:
        try:
            return log.append(split(n), who=str(n), action="set", expect_seq=1).seq
        except StaleTrafficError:
            return None

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(change, range(1, 17)))
    assert sorted(filter(None, got)) == [2]
    assert log.current() is not None
    assert log.current().who == str(got.index(2) + 1)  # type: ignore[union-attr]


def test_changes_of_any_state_all_get_a_number(database: Database) -> None:
    log = TrafficLog(database)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: log.append(split(n), who=str(n), action="set").seq, range(16)))
    assert sorted(got) == list(range(1, 17))
    assert {e.seq: e.who for e in log.history()} == {seq: str(n) for n, seq in enumerate(got)}


def test_a_declaration_counts_once_and_hot_changes_outlive_it(database: Database) -> None:
    log = TrafficLog(database)
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda n: log.declare(split(3000), who=f"replica {n}"), range(8)))
    assert len(set(map(repr, entries))) == len(log.history()) == 1
    hot = log.append(split(1), who="ann", action="set")
    assert log.declare(split(3000), who="redeploy") == hot
    other = log.declare(split(5000), who="new file")
    assert (other.seq, other.action, log.current()) == (3, "declare", other)
    assert log.declare(split(3000), who="old file").seq == 4


def test_changes_of_one_block_are_made_together_or_not_at_all(database: Database) -> None:
    log = TrafficLog(database)

    def change(end: int) -> float:
        with database.writing("a block"):
            assert log.append(split(1), who="ann", action="set") == log.current()
            log.append(split(2), who="ann", action="set", expect_seq=1)
            return 1 / end

    with pytest.raises(ZeroDivisionError):
        change(0)
    assert log.current() is None
    change(1)
    assert [e.seq for e in log.history()] == [2, 1]
