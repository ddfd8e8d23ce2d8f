"""The splits as the page names and orders them."""

from __future__ import annotations

__all__ = ["LABELS", "READING_ORDER"]

LABELS = {"train": "train", "validation": "validation", "test": "test", "oot": "OOT", "oot2": "OOT2"}
"""Names of the splits for readers."""

READING_ORDER = ("oot", "oot2", "test", "validation")
"""Splits with figures, those first that nothing was chosen on."""
