"""Time-ordered splits with gaps, and the purged folds of the cross-validation.

OOT2 is taken first: the last min(oot2_max_rows, oot2_share) rows. The rest is cut in time order. At every
edge the end of the earlier block loses the rows whose label ends after the later block's first decision
(purge), and before them one session's rows (embargo), or 1 % of the block where that is shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.dataset.rows import row_id_hash, row_ids, utc_series
from marketray.errors import DataError
from marketray.features.fitted import FittedFeature
from marketray.settings import SplitSettings

__all__ = ["OPEN_SPLITS", "SPLITS", "VAULT_SPLITS", "Fold", "Split", "SplitBlock", "gap_before", "make_split"]

IntArray = npt.NDArray[np.int64]

OPEN_SPLITS = ("train", "validation", "test")
"""Splits that tuning and selection may read."""

VAULT_SPLITS = ("oot", "oot2")
"""Splits that only the gate and the report may read."""

SPLITS = (*OPEN_SPLITS, *VAULT_SPLITS)
"""All splits in time order."""

_EMBARGO_SHARE = 0.01


@dataclass(frozen=True)
class SplitBlock:
    """One split: the rows [start, stop) of all eligible rows in time order.

    Attributes
    ----------
    start, stop:
        Positions among the eligible rows; the gap lies between `stop` and the next block's `start`.
    purged, embargoed:
        Rows left out at the block's end because their label reaches into the next block, and before those.
    first_decision_at, last_decision_at:
        ISO 8601, UTC.
    row_id_hash:
        Digest of the row ids, see `marketray.dataset.rows.row_id_hash`.
    """

    start: int
    stop: int
    purged: int
    embargoed: int
    first_decision_at: str
    last_decision_at: str
    row_id_hash: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Fold:
    """One fold over the rows of train followed by validation: fit on [0, train_stop), score [start, stop)."""

    train_stop: int
    start: int
    stop: int
    purged: int
    embargoed: int


@dataclass(frozen=True)
class Split:
    """The stored split of one dataset.

    Attributes
    ----------
    instrument:
        Instrument of all rows.
    rows:
        Eligible rows, gaps included.
    blocks:
        `SplitBlock` by name, in time order.
    cv:
        Expanding folds over train + validation.
    columns:
        Feature columns, in stored order.
    detail:
        Further JSON values: key, catalog_hash, fitted features, label report, drop reasons.
    """

    instrument: str
    rows: int
    blocks: dict[str, SplitBlock]
    cv: tuple[Fold, ...]
    columns: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def folds(self) -> list[tuple[slice, slice]]:
        """(rows to fit on, rows to score) of each fold, positions in ``load_blocks(train, validation)``."""
        return [(slice(0, f.train_stop), slice(f.start, f.stop)) for f in self.cv]

    @property
    def fitted(self) -> tuple[FittedFeature, ...]:
        """Features to fit on training rows; they have no stored column."""
        return tuple(FittedFeature.from_json(value) for value in self.detail.get("fitted", ()))

    def to_json(self) -> dict[str, Any]:
        """JSON values; row counts are added for readers."""
        value = asdict(self)
        for name, block in self.blocks.items():
            value["blocks"][name]["rows"] = block.rows
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """The inverse of `to_json`."""
        blocks = {
            name: SplitBlock(**{k: v for k, v in value["blocks"][name].items() if k != "rows"})
            for name in SPLITS
            if name in value["blocks"]
        }
        folds = tuple(Fold(**f) for f in value["cv"])
        return cls(
            value["instrument"], value["rows"], blocks, folds, tuple(value["columns"]), dict(value["detail"])
        )


def gap_before(
    start: int, stop: int, decision_us: IntArray, label_end_us: IntArray, session_rows: int, *, edge: int
) -> tuple[int, int, int]:
    """Cut the end of the block [start, stop) so that nothing in it touches the block that starts at `edge`.

    Parameters
    ----------
    start, stop:
        The earlier block, positions in time order.
    decision_us, label_end_us:
        Decision time and label end of all rows, microseconds, UTC, shape (n,), increasing decisions.
    session_rows:
        Rows of a typical session.
    edge:
        Position of the later block's first row.

    Returns
    -------
    tuple
        (new stop, purged, embargoed).
    """
    overlapping = np.flatnonzero(label_end_us[start:stop] > decision_us[edge])
    purge_at = start + int(overlapping[0]) if len(overlapping) else stop
    embargo = min(session_rows, int(np.ceil(_EMBARGO_SHARE * (stop - start))))
    new_stop = max(start, purge_at - embargo)
    return new_stop, stop - purge_at, purge_at - new_stop


def make_split(
    instrument: str,
    decision_us: IntArray,
    label_end_us: IntArray,
    session_open_us: IntArray,
    settings: SplitSettings,
) -> Split:
    """Split eligible rows in time order.

    Parameters
    ----------
    instrument:
        Instrument of all rows.
    decision_us, label_end_us, session_open_us:
        Decision times (strictly increasing), label ends and session opens, microseconds, UTC, shape (n,).
    settings:
        Shares, OOT2's size, number and size of the folds.

    Raises
    ------
    DataError
        A block or a fold would be empty: there are too few rows.
    """
    n = len(decision_us)
    session_rows = int(np.median(np.unique(session_open_us, return_counts=True)[1])) if n else 0
    oot2 = min(settings.oot2_max_rows, int(n * settings.oot2_share))
    shares = np.cumsum([0.0, settings.train, settings.validation, settings.test, settings.oot])
    edges = [*(int(e) for e in np.floor(shares * (n - oot2) + 1e-9)), n]
    blocks: dict[str, SplitBlock] = {}
    for name, start, stop in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        _require_rows(name, start, stop, n)
        purged = embargoed = 0
        if stop < n:
            stop, purged, embargoed = gap_before(  # noqa: PLW2901
                start, stop, decision_us, label_end_us, session_rows, edge=stop
            )
            _require_rows(name, start, stop, n)
        blocks[name] = _block(instrument, decision_us, start, stop, purged, embargoed)
    kept = np.r_[tuple(slice(blocks[s].start, blocks[s].stop) for s in ("train", "validation"))]
    cv = _folds(decision_us[kept], label_end_us[kept], session_rows, settings)
    return Split(instrument, n, blocks, cv)


def _folds(
    decision_us: IntArray, label_end_us: IntArray, session_rows: int, settings: SplitSettings
) -> tuple[Fold, ...]:
    n = len(decision_us)
    size = int(n * settings.cv_share)
    folds = []
    for k in range(settings.cv_folds):
        start = n - (settings.cv_folds - k) * size
        _require_rows(f"fold {k}", start, start + size, n)
        stop, purged, embargoed = gap_before(0, start, decision_us, label_end_us, session_rows, edge=start)
        _require_rows(f"training part of fold {k}", 0, stop, n)
        folds.append(Fold(stop, start, start + size, purged, embargoed))
    return tuple(folds)


def _block(
    instrument: str, decision_us: IntArray, start: int, stop: int, purged: int, embargoed: int
) -> SplitBlock:
    part = decision_us[start:stop]
    first, last = _iso(part[0]), _iso(part[-1])
    return SplitBlock(start, stop, purged, embargoed, first, last, row_id_hash(row_ids(instrument, part)))


def _iso(us: np.int64) -> str:
    moment: datetime = utc_series("at", np.array([us]))[0]
    return moment.isoformat()


def _require_rows(name: str, start: int, stop: int, n: int) -> None:
    if stop <= start:
        msg = f"split: {name} has no rows left out of {n} eligible ones; required: at least 1"
        raise DataError(msg, hint="use a longer history, a shorter horizon, or other split shares")
