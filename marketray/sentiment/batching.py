"""Batches of token lists: sorted by length, filled up to a budget of tokens, padded to little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Tokens", "plan_batches", "round_up"]


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `length`."""
    return -(-length // multiple) * multiple


def plan_batches(
    lengths: npt.NDArray[np.int64], token_budget: int, multiple: int = 1
) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of the texts of each batch, longest first; every position stands in one batch.

    Parameters
    ----------
    lengths:
        Tokens of each text, shape (n,).
    token_budget:
        Rows times padded length of a batch are at most this; a longer text is a batch of its own.
    multiple:
        Lengths are padded to a multiple of this.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(token_budget // round_up(int(lengths[order[start]]), multiple), 1)
        yield order[start : start + rows]
        start += rows


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, one after the other.

    Attributes
    ----------
    ids:
        All ids, shape (sum of the lengths,).
    starts, lengths:
        Where each text's ids begin, and how many they are, shape (n,).
    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def from_arrow(cls, lists: pa.ListArray) -> Tokens:
        """View an Arrow list array without nulls; the ids are not copied."""
        offsets = lists.offsets.to_numpy().astype(np.int64)
        return cls(lists.values.to_numpy(), offsets[:-1], np.diff(offsets))

    def padded(
        self, rows: npt.NDArray[np.int64], pad: int, multiple: int = 1
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Ids of the texts `rows`, filled with `pad` on the right, and where they are real.

        Returns
        -------
        tuple
            Both of shape (len(rows), longest length rounded up to a multiple of `multiple`).
        """
        lengths = self.lengths[rows]
        columns = np.arange(round_up(int(lengths.max()), multiple))
        real = columns < lengths[:, None]
        ids = np.full(real.shape, pad, np.int32)
        ids[real] = self.ids[(self.starts[rows][:, None] + columns)[real]]
        return ids, real
