"""The record of predictions: each once, found by filters and pages, settled when the truth is known."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from marketray.errors import StoreError
from marketray.serving.store import Store
from marketray.serving.store.predictions import (
    EVERYTHING,
    CursorError,
    Prediction,
    PredictionRow,
    Settlement,
    Wanted,
)
from marketray.serving.store.tables import PREDICTIONS
from tests.serving.store.rows import HORIZON, START, row

SECOND = timedelta(seconds=1)


def as_given(found: list[Prediction]) -> list[PredictionRow]:
    names = [field.name for field in fields(PredictionRow)]
    return [PredictionRow(**{name: getattr(p, name) for name in names}) for p in found]


def test_answers_come_back_as_they_were_and_once(store: Store) -> None:
    rows = [
        row("a"),
        row("a", slot="green", shadow=True, model_version=2, predicted_return=-1e-17),
        row(
            "b",
            bars="request",
            at=datetime(2024, 3, 10, 1, 59, 59, 999_999, tzinfo=ZoneInfo("America/New_York")),
        ),
        PredictionRow(
            request_id="c/1", at=START, slot="blue", instrument="X", status=503, problem="no-model"
        ),
    ]
    store.predictions.record(rows)
    store.predictions.record([replace(r, last_close=1.0) for r in rows])
    store.predictions.record([])
    found, cursor = store.predictions.history()
    assert cursor is None
    assert as_given(found) == sorted(rows, key=lambda r: (r.at, rows.index(r)), reverse=True)
    assert {p.actual_at for p in found} == {None}
    assert all(p.at.tzinfo is UTC for p in found)


def test_a_number_that_is_not_finite_is_stored_as_null(store: Store) -> None:
    store.predictions.record([row(n, predicted_return=float(n), probability_up=None) for n in ("nan", "inf")])
    assert [p.predicted_return for p in store.predictions.history()[0]] == [None, None]


def test_a_row_that_is_refused_refuses_its_batch(store: Store) -> None:
    with pytest.raises(StoreError, match="recording predictions failed: .*without zone"):
        store.predictions.record([row("a"), row("b", at=datetime(2024, 5, 1))])
    assert store.predictions.history()[0] == []


def test_filters_agree_with_all_that_is_given(store: Store) -> None:
    rows = [
        row(n, at=START + n * SECOND, slot=slot, shadow=slot == "green", model_version=version, instrument=i)
        for n, (slot, version, i) in enumerate(
            [("blue", 1, "A"), ("green", 2, "A"), ("blue", 2, "B"), ("green", 1, "B"), ("blue", 1, "B")]
        )
    ]
    store.predictions.record(rows)

    def names(**wanted: object) -> str:
        found, _ = store.predictions.history(Wanted(**wanted))  # type: ignore[arg-type]
        return "".join(p.request_id for p in found)

    assert names() == "43210"
    assert names(instrument="B") == "432"
    assert names(slot="blue", version=1) == "40"
    assert names(shadow=True) == "31"
    assert names(shadow=False, version=2) == "2"
    assert names(from_at=START + SECOND, to_at=START + 3 * SECOND) == "21"
    assert names(instrument="C") == ""


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_of_another_size_is_refused(store: Store, limit: int) -> None:
    with pytest.raises(StoreError, match=rf"limit={limit}; required: 1 … 1000"):
        store.predictions.history(limit=limit)


@pytest.mark.parametrize(
    "cursor", ["", "x", "1-2-3", "1_0-2", "999999999999999999-1", "1-9999999999999999999"]
)
def test_a_cursor_of_someone_else_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(CursorError, match="cursor=.*; required: the cursor that the page before came with"):
        store.predictions.history(cursor=cursor)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    there=st.lists(st.integers(0, 5), min_size=1, max_size=25),
    coming=st.lists(st.integers(0, 5), max_size=12),
    limit=st.integers(1, 7),
)
def test_pages_are_complete_and_without_doubles_whatever_is_recorded_meanwhile(
    store: Store, there: list[int], coming: list[int], limit: int
) -> None:
    with store.database.writing("emptying") as connection:
        connection.execute(delete(PREDICTIONS))
    store.predictions.record([row(f"there {n}", at=START + s * SECOND) for n, s in enumerate(there)])
    before, _ = store.predictions.history(limit=1000)
    arriving = iter([row(f"coming {n}", at=START + s * SECOND) for n, s in enumerate(coming)])
    seen, cursor = store.predictions.history(limit=limit)
    while cursor is not None:
        store.predictions.record([r for r in [next(arriving, None)] if r is not None])
        page, cursor = store.predictions.history(limit=limit, cursor=cursor)
        assert 1 <= len(page) <= limit
        seen += page
    order = [(p.at, p.id) for p in seen]
    assert order == sorted(set(order), reverse=True)
    assert [p for p in seen if p.request_id.startswith("there")] == before


def test_predictions_are_due_when_their_label_has_ended_and_until_they_are_settled(store: Store) -> None:
    decisions = [START + n * timedelta(minutes=1) for n in range(4)]
    store.predictions.record([row(n, decision_at=at) for n, at in enumerate(decisions)][::-1])
    store.predictions.record(
        [
            row("failed", status=503, predicted_return=None, probability_up=None),
            row("direction", predicted_return=None, decision_at=START - SECOND),
            row("nothing", decision_at=None, at=START),
        ]
    )

    def due(now: datetime, **limit: int) -> list[str]:
        return [p.request_id for p in store.predictions.due(now, **limit)]

    assert due(START + HORIZON - 2 * SECOND) == []
    assert due(decisions[1] + HORIZON) == ["direction", "0", "1"]
    assert due(decisions[3] + HORIZON, limit=2) == ["direction", "0"]
    first, second, third = store.predictions.due(decisions[1] + HORIZON)
    at = decisions[3] + HORIZON
    store.predictions.settle(
        [Settlement(first.id, -0.002), Settlement(second.id, 0.0004), Settlement(third.id, None, "no bar")],
        at,
    )
    store.predictions.settle([Settlement(second.id, 9.0)])
    store.predictions.settle([])
    assert due(decisions[3] + HORIZON) == ["2", "3"]
    settled = {p.request_id: p for p in store.predictions.history()[0] if p.actual_at is not None}
    assert {p.actual_at for p in settled.values()} == {at}
    assert (settled["0"].actual_return, settled["0"].error) == (0.0004, 0.001 - 0.0004)
    assert (settled["direction"].actual_return, settled["direction"].error) == (-0.002, None)
    kept = settled["1"]
    assert (kept.actual_return, kept.error, kept.actual_reason) == (None, None, "no bar")
    store.predictions.settle([Settlement(p.id, 0.0) for p in store.predictions.due(at)])
    assert abs(store.predictions.history()[0][0].actual_at - datetime.now(UTC)) < timedelta(hours=1)  # type: ignore[operator]


def test_old_predictions_are_deleted_a_few_at_a_time_and_those_that_await_their_label_later(
    store: Store,
) -> None:
    ages = {n: START - n * SECOND for n in range(10)}
    store.predictions.record([row(n, at=at) for n, at in ages.items()])
    settled = [p for p in store.predictions.history()[0] if p.request_id in {"4", "6", "8"}]
    store.predictions.settle([Settlement(p.id, 0.001) for p in settled])
    nothing = {"predicted_return": None, "probability_up": None, "decision_at": None}
    store.predictions.record([row("failed", at=ages[5], status=503, **nothing)])

    def prune() -> int:
        return store.predictions.prune(ages[4], awaiting_before=ages[7], limit=2)

    def left() -> list[str]:
        return [p.request_id for p in store.predictions.history()[0]]

    assert prune() == 2  # 9 awaits its label for too long, 8 has it
    assert left() == ["0", "1", "2", "3", "4", "failed", "5", "6", "7"]
    assert prune() == 2
    assert left() == ["0", "1", "2", "3", "4", "5", "7"]  # 5 and 7 may still get theirs
    assert prune() == 0
    assert store.predictions.prune(START, awaiting_before=START) == 6
    assert left() == ["0"]


def test_a_stream_gives_all_rows_of_one_moment_in_lists(store: Store) -> None:
    store.predictions.record([row(n, at=START - n * SECOND) for n in range(7)])
    stream = store.predictions.stream(EVERYTHING, batch=3)
    lists = [next(stream)]
    store.predictions.record([row("late", at=START + SECOND)])
    lists += list(stream)
    assert [[r["request_id"] for r in rows] for rows in lists] == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
