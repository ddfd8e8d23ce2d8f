"""Recording off the request path: a bounded buffer and one thread that writes it in batches.

What is lost where the process is killed: what was put in the last `every_seconds` and the batch that is being
written then, or all that waits while the store is away. Where more comes than the store takes, or it stays
away until the buffer is full, new rows are shed: not taken, and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from marketray.errors import StoreError
from marketray.serving.store.database import StoreUnavailableError
from marketray.serving.store.predictions import PredictionRow

__all__ = ["PredictionWriter", "WriterCounts"]

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class WriterCounts:
    """What became of the rows since the start: put = taken + shed, taken = written + failed + waiting.

    Attributes
    ----------
    taken, shed:
        Rows that `put` took, and those that it did not, since the buffer was full or closed.
    written:
        Rows that the store has.
    failed:
        Rows that the store refused, and those given up at the end.
    waiting:
        Rows in the buffer.
    """

    taken: int
    shed: int
    written: int
    failed: int
    waiting: int


class PredictionWriter:
    """Takes rows at once and records them soon.

    A row that the store refuses is left out and counted, so that it holds up no other. While the store
    cannot be reached, rows wait and are tried again after pauses of up to ten seconds.

    Parameters
    ----------
    record:
        Stores rows in one transaction, see `marketray.serving.store.predictions.Predictions.record`; the
        same rows may be recorded twice.
    capacity:
        Most rows that wait.
    every_seconds:
        Longest time that a row waits while the store answers.
    batch:
        Most rows of one transaction; so many are written before that time is over.
    """

    def __init__(
        self,
        record: Callable[[list[PredictionRow]], None],
        *,
        capacity: int = 20_000,
        every_seconds: float = 0.5,
        batch: int = 1_000,
    ) -> None:
        self._record, self._capacity = record, capacity
        self._every_seconds, self._batch = every_seconds, batch
        self._rows: deque[PredictionRow] = deque()
        self._lock = threading.Lock()
        self._taken = self._shed = self._written = self._failed = 0
        self._refusal = ""
        self._wake, self._closing = threading.Event(), threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="prediction-writer", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> WriterCounts:
        """The counters at one moment."""
        with self._lock:
            return WriterCounts(self._taken, self._shed, self._written, self._failed, len(self._rows))

    def put(self, row: PredictionRow) -> bool:
        """Take a row: True; or shed it: False. Waits for nothing and raises nothing."""
        with self._lock:
            if len(self._rows) >= self._capacity or self._closing.is_set() or not self._thread.is_alive():
                self._shed += 1
                return False
            self._rows.append(row)
            self._taken += 1
            full = len(self._rows) >= self._batch
        if full:
            self._wake.set()
        return True

    def close(self, timeout: float = 10.0) -> WriterCounts:
        """Take no more rows, write what waits within `timeout` seconds, and give the last counters.

        What cannot be written by then counts as failed; what a call to the store still holds stays waiting.
        """
        with self._lock:  # whoever has seen that we are open has put its row by now
            self._give_up_at = time.monotonic() + timeout
            self._closing.set()
        self._wake.set()
        self._thread.join(timeout)
        return self.counts

    def _run(self) -> None:
        pause = 0.0
        while True:
            if pause:
                self._closing.wait(pause)
            else:
                self._wake.wait(self._every_seconds)
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                self._write_all()
                pause = 0.0
            except StoreUnavailableError as e:
                pause = min(max(2 * pause, self._every_seconds), _LONGEST_PAUSE)
                logger.warning("predictions wait, next try in %.1f s: %s", pause, e.message)
            if closing and not self._still_waiting(pause):
                return

    def _still_waiting(self, pause: float) -> bool:
        """At the end: whether to try again. Pauses in between; gives the rest up when time is over."""
        if not self._rows:
            return False
        time.sleep(min(pause, max(0.0, self._give_up_at - time.monotonic())))
        if time.monotonic() < self._give_up_at:
            return True
        logger.error("predictions: %d were not recorded, the store stayed away", len(self._rows))
        self._drop(len(self._rows), failed=True)
        return False

    def _write_all(self) -> None:
        while self._rows:
            with self._lock:
                rows = list(islice(self._rows, self._batch))
            failed = self._failed
            self._write(rows)
            if self._failed > failed:
                logger.error(
                    "predictions: %d are left out, the last: %s", self._failed - failed, self._refusal
                )

    def _write(self, rows: list[PredictionRow]) -> None:
        """Record the first of the rows that wait, in halves where the store refuses them together."""
        try:
            self._record(rows)
        except StoreUnavailableError:
            raise
        except StoreError as e:
            if len(rows) > 1:
                half = len(rows) // 2
                self._write(rows[:half])
                self._write(rows[half:])
            else:
                self._refusal = e.message
                self._drop(1, failed=True)
        else:
            self._drop(len(rows), failed=False)

    def _drop(self, number: int, *, failed: bool) -> None:
        """Take rows that are done with out of the buffer."""
        with self._lock:
            for _ in range(number):
                self._rows.popleft()
            self._failed += number if failed else 0
            self._written += 0 if failed else number
