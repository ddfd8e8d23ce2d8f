"""Checks of single bars and of their order; nothing here looks at data that come later than needed.

`row_reasons` looks at one bar alone. `OrderCheck` refuses duplicates and bars out of order; it knows the
two rows that follow, since one stamp far ahead must not make everything after it look late.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from marketray.bars import PRICES, QUOTES, SIZES, VALUES

__all__ = ["OrderCheck", "row_reasons"]


def row_reasons(frame: pl.DataFrame, *, interval_minutes: int, clock: datetime | None = None) -> pl.DataFrame:
    """`frame` with `reason` filled where a readable bar cannot be true; the first rule that applies names it.

    The rules, in order: non_positive_price; ohlc_inconsistent (high below, or low above, one of the other
    prices); negative_volume; non_positive_quote; crossed_quote (ask below bid); negative_size (at a quote);
    after_clock (the bar ends after `clock`).

    Parameters
    ----------
    frame:
        Rows of `marketray.ingest.parsing.parse_chunk`.
    interval_minutes:
        Length of a bar.
    clock:
        Time of the ingest, tz-aware; None where the data's own end is the clock.
    """
    prices = [pl.col(name) for name in PRICES]
    rules = [
        (pl.min_horizontal(prices) <= 0, "non_positive_price"),
        (
            (pl.col("high") < pl.max_horizontal("open", "low", "close"))
            | (pl.col("low") > pl.min_horizontal("open", "close")),
            "ohlc_inconsistent",
        ),
    ]
    if "volume" in frame.columns:
        rules.append((pl.col("volume") < 0, "negative_volume"))
    quotes = [name for name in QUOTES if name in frame.columns]
    if quotes:
        rules.append((pl.min_horizontal(quotes) <= 0, "non_positive_quote"))
    if len(quotes) == 2:
        rules.append((pl.col("ask") < pl.col("bid"), "crossed_quote"))
    sizes = [name for name in SIZES if name in frame.columns]
    if sizes:
        rules.append((pl.min_horizontal(sizes) < 0, "negative_size"))
    if clock is not None:
        rules.append((pl.col("time") > clock - timedelta(minutes=interval_minutes), "after_clock"))
    found = [pl.when(test).then(pl.lit(reason)) for test, reason in rules]
    return frame.with_columns(reason=pl.coalesce("reason", *found))


class OrderCheck:
    """Accepts bars in strictly increasing time and refuses the others, over any number of chunks.

    A bar at the time of the last accepted one is a `duplicate` (same values) or a `conflicting_duplicate`;
    an earlier one is `out_of_order`. A bar is `out_of_order` itself where both bars that follow are before
    it while the next is after the bar before it: that stamp is wrong, not all that follow.
    """

    def __init__(self) -> None:
        self._pending: pl.DataFrame | None = None
        self._previous: int | None = None
        self._last: pl.DataFrame | None = None

    def push(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Accepted and refused rows (with `reason`); the last two rows wait for the next call."""
        if self._pending is not None:
            frame = pl.concat([self._pending, frame], how="diagonal")
        count = max(len(frame) - 2, 0)
        self._pending = frame[count:]
        return self._judge(frame, count)

    def flush(self) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """The rows that still waited, at the end of the data; None where there were none."""
        frame, self._pending = self._pending, None
        return None if frame is None else self._judge(frame, len(frame))

    def _judge(self, frame: pl.DataFrame, count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        if not count:
            return frame[:0], frame[:0]
        everything = frame["time"].to_physical().to_numpy()
        lowest = np.iinfo(np.int64).min
        before = np.concatenate([[lowest if self._previous is None else self._previous], everything[:-1]])
        highest = np.iinfo(np.int64).max
        ahead = np.concatenate([everything, [highest, highest]])
        next1, next2 = ahead[1:-1], ahead[2:]
        jump = ((everything > next1) & (everything > next2) & (before < next1))[:count]
        times = everything[:count]
        last = lowest if self._last is None else int(self._last["time"].to_physical()[0])
        reached = np.maximum.accumulate(np.concatenate([[last], np.where(jump, lowest, times)]))[:-1]
        accepted = ~jump & (times > reached)
        self._previous = int(times[-1])
        rows = frame[:count]
        good = rows.filter(pl.Series(accepted))
        known = good if self._last is None else pl.concat([self._last, good], how="diagonal")
        refused = rows.filter(pl.Series(~accepted))
        if len(refused):
            same_time = pl.Series((~jump & (times == reached))[~accepted])
            refused = _name_reasons(refused, same_time, known)
        self._last = known[-1:] if len(known) else None
        return good, refused


def _name_reasons(refused: pl.DataFrame, same_time: pl.Series, known: pl.DataFrame) -> pl.DataFrame:
    values = [name for name in VALUES if name in refused.columns and name in known.columns]
    joined = refused.join(
        known.select("time", *values), on="time", how="left", suffix="_known", maintain_order="left"
    )
    equal = joined.select(
        pl.all_horizontal(pl.lit(value=True), *(pl.col(v).eq_missing(pl.col(f"{v}_known")) for v in values))
    ).to_series()
    return (
        refused.with_columns(same=same_time, equal=equal)
        .with_columns(
            reason=pl.when(~pl.col("same"))
            .then(pl.lit("out_of_order"))
            .when(pl.col("equal"))
            .then(pl.lit("duplicate"))
            .otherwise(pl.lit("conflicting_duplicate"))
        )
        .drop("same", "equal")
    )
