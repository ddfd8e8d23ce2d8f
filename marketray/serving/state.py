"""The bars that a forecast starts from: the latest of the lake, or those of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from marketray.features.tail import BAR_COLUMNS, OPTIONAL_COLUMNS, bar_schema, read_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketray.serving.schemas import Bar

__all__ = ["BAR_COLUMNS", "OPTIONAL_COLUMNS", "bars_frame", "read_tail"]


def bars_frame(bars: Sequence[Bar]) -> pl.DataFrame:
    """Bars of a request as a table with the columns `BAR_COLUMNS`."""
    rows = [tuple(getattr(b, name) for name in BAR_COLUMNS) for b in bars]
    return pl.DataFrame(rows, schema=bar_schema(), orient="row")
