"""Row identity: one instrument at one decision time."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["row_id_hash", "row_ids", "utc_series"]


def utc_series(name: str, us: npt.NDArray[np.int64]) -> pl.Series:
    """Microseconds since the epoch as a tz-aware UTC series, shape (n,)."""
    return pl.Series(name, us, dtype=pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def row_ids(instrument: str, decision_us: npt.NDArray[np.int64]) -> pl.Series:
    """``SPX500_USD@20180102T1431`` for each decision time (microseconds since the epoch, UTC), shape (n,)."""
    stamps = utc_series("row_id", decision_us).dt.strftime("%Y%m%dT%H%M")
    return (pl.lit(f"{instrument}@") + stamps).pipe(pl.select).to_series().alias("row_id")


def row_id_hash(ids: npt.NDArray[np.str_] | pl.Series) -> str:
    """32 hex digits over row ids in their order."""
    return hashlib.sha256(
        "\n".join(ids.to_list() if isinstance(ids, pl.Series) else ids.tolist()).encode()
    ).hexdigest()[:32]
