"""Showing a tuning as it runs: a table on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from marketray.tuning.records import TrialRecord, best_of, read_records
from marketray.tuning.trial import rung_name

__all__ = ["ProgressView"]

logger = logging.getLogger(__name__)


class ProgressView:
    """Reads the records that the families write and shows what is new.

    Parameters
    ----------
    folder:
        The tuning's folder.
    wanted:
        Trials of stage 1 and of stage 2, by family.
    console:
        Where to draw; the table appears only on a terminal.
    """

    def __init__(
        self, folder: Path, wanted: Mapping[str, tuple[int, int]], console: Console | None = None
    ) -> None:
        self._folder, self._wanted = folder, wanted
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._seen: dict[str, TrialRecord] = {}
        self._counts: dict[Path, int] = {}

    def __enter__(self) -> ProgressView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> int:
        """Look for new records, show them, and return how many there are in all."""
        fresh = []
        for family in self._wanted:
            for stage in (1, 2):
                folder = self._folder / family / f"stage{stage}"
                count = len(list(folder.glob("trial_*.json")))
                if count != self._counts.get(folder, 0):
                    self._counts[folder] = count
                    fresh += [r for r in read_records(folder) if r.trial_id not in self._seen]
        for record in fresh:
            self._seen[record.trial_id] = record
            if self._live is None:
                logger.info("tune: %s", self._line(record))
        if self._live is not None and fresh:
            self._live.update(self._table(), refresh=True)
        return len(self._seen)

    def _line(self, record: TrialRecord) -> str:
        outcome = (
            f"cv_rmse {record.cv_rmse:.4e}, {record.score:.5f} of zero"
            if record.cv_rmse is not None
            else f"pruned after {rung_name(record.rungs[-1][0])}, {record.score:.5f} of zero"
        )
        done = sum(r.family == record.family and r.stage == record.stage for r in self._seen.values())
        total = self._wanted[record.family][record.stage - 1]
        return f"{record.family} stage {record.stage}: {done} of {total} trials; {outcome}"

    def _table(self) -> Table:
        table = Table(title="Tuning")
        for column in ("family", "stage 1", "stage 2", "pruned", "best RMSE / zero", "best cv_rmse"):
            table.add_column(column)
        for family, wanted in self._wanted.items():
            mine = [r for r in self._seen.values() if r.family == family]
            best = best_of(mine)
            counts = [f"{sum(r.stage == s for r in mine)}/{wanted[s - 1]}" for s in (1, 2)]
            pruned = str(sum(r.state == "pruned" for r in mine))
            figures = ("–", "–") if best is None else (f"{best.score:.5f}", f"{best.cv_rmse:.4e}")
            table.add_row(family, *counts, pruned, *figures)
        return table
