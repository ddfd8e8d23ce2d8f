"""The cut into work items: months, halos, keys."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketray.errors import DataError
from marketray.features.items import BarMonth, TimeRange, month_ranges, plan_items

MONTHS = [BarMonth("2023-11", 500, "a"), BarMonth("2023-12", 20, "b"), BarMonth("2024-01", 900, "c")]


def plan(lookback: int, months: list[BarMonth] = MONTHS) -> list[tuple[tuple[str, ...], bool]]:
    items = plan_items("X", months, month_ranges(months), lookback, "recipe")
    return [(i.months, i.from_start) for i in items]


def test_each_item_reads_the_shortest_run_of_months_that_holds_its_halo() -> None:
    assert plan(21) == [
        (("2023-11",), True),
        (("2023-11", "2023-12"), True),
        (("2023-12", "2024-01"), False),
    ]
    assert plan(22)[2] == (("2023-11", "2023-12", "2024-01"), True)
    assert plan(1) == [((m.month,), m.month == "2023-11") for m in MONTHS]


def test_a_range_inside_months_reads_the_months_it_touches() -> None:
    span = TimeRange("part", "0", datetime(2023, 12, 20, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    (item,) = plan_items("X", MONTHS, [span], 300, "recipe")
    assert item.months == ("2023-11", "2023-12", "2024-01")
    assert item.partition == {"instrument": "X", "part": "0"}


def test_the_key_follows_inputs_halo_and_recipe() -> None:
    def keys(months: list[BarMonth], recipe: str = "recipe") -> list[str]:
        return [i.key for i in plan_items("X", months, month_ranges(months), 21, recipe)]

    changed = [BarMonth("2023-11", 500, "a"), BarMonth("2023-12", 20, "other"), MONTHS[2]]
    same = [a == b for a, b in zip(keys(MONTHS), keys(changed), strict=True)]
    assert same == [True, False, False]
    assert not set(keys(MONTHS)) & set(keys(MONTHS, "another"))
    assert keys([*MONTHS, BarMonth("2024-02", 5, "d")])[:3] == keys(MONTHS)


def test_a_range_without_bars_is_refused() -> None:
    span = TimeRange("part", "0", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC))
    with pytest.raises(DataError, match="no bars of X are stored for 2024-03-01 00:00 to 2024-03-02"):
        plan_items("X", MONTHS, [span], 5, "recipe")
