"""The columns of a bar and its greatest length, named once for ingest, features and serving."""

from __future__ import annotations

__all__ = ["COLUMNS", "DAY_MINUTES", "OPTIONAL", "PRICES", "QUOTES", "REQUIRED", "SIZES", "VALUES"]

PRICES = ("open", "high", "low", "close")
"""In the instrument's quote currency, above 0."""

QUOTES = ("bid", "ask")
"""Best quotes at the bar's end, in the quote currency, above 0."""

SIZES = ("bid_size", "ask_size")
"""Sizes at those quotes, in the units of the volume, at least 0."""

REQUIRED = ("time", *PRICES)
"""What every bar has; `time` is its open, UTC."""

OPTIONAL = ("volume", *QUOTES, *SIZES)
"""What a market may lack."""

VALUES = (*PRICES, *OPTIONAL)
"""The numbers of a bar."""

COLUMNS = ("time", *VALUES)
"""All columns, in the order of every table of bars."""

DAY_MINUTES = 1440
"""Length of a daily bar, the longest there is; also the longest session."""
