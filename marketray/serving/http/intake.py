"""New bars on their way to the slots: all of a request's bars are taken, or none."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from marketray.bars import COLUMNS
from marketray.features.tail import read_at
from marketray.lake import Lake
from marketray.serving.problems import ProblemError, problem
from marketray.serving.schemas import Problem
from marketray.serving.state import bars_frame
from marketray.serving.store.live_bars import Appended, ConflictingBarError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketray.features.online import Refusal
    from marketray.serving.http.api import Service
    from marketray.serving.schemas import Bar
    from marketray.serving.store import Store
    from marketray.settings import Settings

__all__ = ["take"]

_NOT_NEWER = ("late", "duplicate", "conflicting_duplicate")
"""Refusals of bars that may be known already."""


async def take(service: Service, bars: Sequence[Bar]) -> Appended:
    """Append bars to the live ones and have the slots start from them.

    A bar that is known with the same values, from the live bars, the lake or the same request, is no error.

    Raises
    ------
    ProblemError
        A bar is refused: 422 with the reason for each of them; 503 where there is no state to append to.
    ConflictingBarError
        Another bar stands at a bar's time.
    StoreError, LakeError
        The known bars cannot be read, or the new ones not be written.
    """
    table = bars_frame(bars)
    refusals = await service.refusals(table.to_dicts())
    if isinstance(refusals, Problem):
        raise ProblemError(refusals)
    appended = await asyncio.to_thread(_append, service.store, service.settings, table, refusals)
    if appended["taken"]:
        await service.control.tell_slots()
    return appended


def _append(
    store: Store, settings: Settings, bars: pl.DataFrame, refusals: Sequence[Refusal | None]
) -> Appended:
    is_new = pl.Series([refused is None for refused in refusals], dtype=pl.Boolean)
    not_newer = [i for i, r in enumerate(refusals) if r is not None and r.reason in _NOT_NEWER]
    there = _at(store, settings, bars["time"].gather(not_newer).to_list(), bars.filter(is_new))
    known = [i for i in not_newer if bars["time"][i] in there]
    wrong = [(i, r) for i, r in enumerate(refusals) if r is not None and i not in set(known)]
    if wrong:
        raise ProblemError(_refused(wrong, bars))
    for row in map(bars.row, known):
        if there[row[0]] != row:
            raise _conflict(settings.instrument, there[row[0]], row)
    appended = store.bars.append(settings.instrument, bars.filter(is_new))
    return {"taken": appended["taken"], "known": appended["known"] + len(known)}


def _conflict(instrument: str, known: tuple[Any, ...], got: tuple[Any, ...]) -> ConflictingBarError:
    values = zip(COLUMNS, known, got, strict=True)
    changed = {name: (there, sent) for name, there, sent in values if there != sent}
    msg = f"bar of {instrument}, time={got[0]}: differs from the known one, (known, got)={changed}"
    return ConflictingBarError(msg, hint="a finished bar does not change; send corrections by an ingest")


def _at(
    store: Store, settings: Settings, times: list[datetime], more: pl.DataFrame
) -> dict[datetime, tuple[Any, ...]]:
    """The known bars at these times, and those of `more`: their values in the order of `COLUMNS`, by time."""
    if not times:
        return {}
    lake = read_at(Lake(settings.lake_uri), settings.instrument, times)
    live = store.bars.at(settings.instrument, times)
    rows = pl.concat([more, live, lake]).select(COLUMNS).iter_rows()
    return {row[0]: row for row in rows}


def _refused(wrong: Sequence[tuple[int, Refusal]], bars: pl.DataFrame) -> Problem:
    errors = [
        {
            "field": f"body.bars.{i}",
            "got": bars["time"][i].isoformat(),
            "rule": refused.reason,
            "required": refused.message.rpartition("required: ")[2],
        }
        for i, refused in wrong
    ]
    first = wrong[0][1]
    return problem(
        "refused-bars",
        422,
        "The bars cannot be taken",
        f"{first.message} ({len(wrong)} of {len(bars)} bars refused, none taken)",
        got=first.reason,
        required=errors[0]["required"],
        hint="send finished bars in time order, each once, newer than /model-info's last_bar_end_at",
        errors=errors,
    )
