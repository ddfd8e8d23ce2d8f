"""What came true: the actual return of every prediction, by the rule of the labels.

The rule is `marketray.dataset.labels.label_bars` itself, on the lake's bars and the live ones, with the
horizon of the prediction. A prediction is settled when no bar can change its label any more: a bar has ended
at its target or later, or the session is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from marketray.dataset.labels import label_bars
from marketray.lake import Lake
from marketray.serving.store.predictions import Settlement
from marketray.sessions import month_sessions

if TYPE_CHECKING:
    from marketray.serving.store import Store
    from marketray.serving.store.predictions import Prediction
    from marketray.sessions import Sessions
    from marketray.settings import LabelSettings, Settings

__all__ = ["Settler", "known_until", "settlements"]

_BARS = "bronze/bars"
_PAGE = 10_000
_COLUMNS = {"time": pl.Datetime("us", "UTC"), "close": pl.Float64()}


def known_until(newest: datetime, sessions: Sessions, interval_minutes: int) -> datetime:
    """The latest target at which labels are known, when the newest bar opened at `newest`; UTC.

    That is the bar's end, or, where it ends its session, the open of the next one.
    """
    end = newest + timedelta(minutes=interval_minutes)
    later = sessions.frame.filter(pl.col("close_at") > end)
    opens_at: datetime | None = later["open_at"].min()  # type: ignore[assignment]
    return max(end, opens_at) if opens_at is not None else end


def settlements(
    due: Sequence[Prediction],
    bars: pl.DataFrame,
    sessions: Sessions,
    labels: LabelSettings,
    interval_minutes: int,
) -> list[Settlement]:
    """What came true of predictions whose labels are known.

    Parameters
    ----------
    due:
        Predictions of one instrument, with times.
    bars:
        Columns time and close, sorted; from the decisions' bars to the last target.
    sessions, labels, interval_minutes:
        As in `marketray.dataset.labels.label_bars`; the horizon is the prediction's own.

    Returns
    -------
    list
        Returns are fractions. Where there is none, the reason is one of
        `marketray.dataset.labels.REASONS`, ``no_decision_bar`` (no bar ends at the decision) or
        ``other_close`` (that bar has another close than the forecast started from).
    """
    asked = pl.DataFrame(
        [(p.id, p.decision_at, p.target_at, p.last_close) for p in due],
        schema={
            "id": pl.Int64(),
            "decision_at": _COLUMNS["time"],
            "target_at": _COLUMNS["time"],
            "last_close": pl.Float64(),
        },
        orient="row",
    )
    made: list[Settlement] = []
    for (horizon,), part in asked.group_by((pl.col("target_at") - pl.col("decision_at")).dt.total_minutes()):
        own = labels.model_copy(update={"horizon_minutes": horizon, "extra_horizons_minutes": ()})
        labelled = label_bars(bars, sessions, own, bar_interval_minutes=interval_minutes)
        found = part.join(labelled, on="decision_at", how="left")
        same = (pl.col("close") - pl.col("last_close")).abs() <= 1e-9 * pl.col("close")
        why = (
            pl.when(pl.col("close").is_null())
            .then(pl.lit("no_decision_bar"))
            .when(~same)
            .then(pl.lit("other_close"))
            .otherwise(pl.col("reason"))
        )
        found = found.with_columns(why.alias("why"))
        value = pl.when(pl.col("why").is_null()).then("label_return")
        made += [Settlement(*row) for row in found.select("id", value, "why").iter_rows()]
    return made


class Settler:
    """Settles the predictions of the served instrument in the store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._lake = Lake(settings.lake_uri)
        self._lake_end: tuple[str, datetime] | None = None

    def settle(self, limit: int = 1_000) -> int:
        """Settle the first `limit` predictions whose labels are known; how many there were. Blocks.

        Predictions of an instrument that is not served any more are settled with the reason
        ``not_served``, since no bar will come.

        Raises
        ------
        LakeError, StoreError
            Bars cannot be read, or the record cannot be written.
        """
        settings, store = self._settings, self._store
        newest = self._newest()
        if newest is None:
            return 0
        interval = timedelta(minutes=settings.bar_interval_minutes)
        soon = (newest + timedelta(days=7)).date()
        around = month_sessions(settings.market, newest.date(), soon)
        due = store.predictions.due(known_until(newest, around, settings.bar_interval_minutes), limit)
        if not due:
            return 0
        served = [p for p in due if p.instrument == settings.instrument]
        made = [Settlement(p.id, None, "not_served") for p in due if p.instrument != settings.instrument]
        if served:
            first = min(p.decision_at for p in served if p.decision_at) - interval
            last = max(p.target_at for p in served if p.target_at)
            sessions = month_sessions(settings.market, first.date(), last.date())
            made += settlements(
                served, self._bars(first, last), sessions, settings.labels, settings.bar_interval_minutes
            )
        store.predictions.settle(made)
        return len(made)

    def _newest(self) -> datetime | None:
        """Open of the newest bar, in the lake or live."""
        partitions = self._lake.partitions(_BARS, instrument=self._settings.instrument)
        if partitions:
            manifest = self._lake.manifest(_BARS, partitions[-1])
            content = manifest.content if manifest is not None else ""
            if self._lake_end is None or self._lake_end[0] != content:
                times = pl.DataFrame(self._lake.read(_BARS, partitions[-1], ["time"]))["time"]
                self._lake_end = content, times.max()  # type: ignore[assignment]
        live = self._store.bars.last(self._settings.instrument)
        stored = None if self._lake_end is None else self._lake_end[1]
        return max((t for t in (stored, live) if t is not None), default=None)

    def _bars(self, first: datetime, last: datetime) -> pl.DataFrame:
        """Bars that open in [first, last], of the lake and, where that has none, live; columns `_COLUMNS`."""
        instrument = self._settings.instrument
        months = f"{first:%Y-%m}", f"{last:%Y-%m}"
        stored = self._lake.partitions(_BARS, instrument=instrument)
        inside = [p for p in stored if months[0] <= p["month"] <= months[1]]
        parts = [pl.DataFrame(self._lake.read(_BARS, p, list(_COLUMNS))) for p in inside]
        after: datetime | None = first - timedelta(microseconds=1)
        while after is not None and after <= last:
            page = self._store.bars.since(instrument, after, _PAGE)
            parts.append(page.select(list(_COLUMNS)))
            after = page["time"][-1] if len(page) == _PAGE else None
        together = pl.concat(parts).filter(pl.col("time").is_between(first, last))
        return together.unique("time", keep="first", maintain_order=True).sort("time")
