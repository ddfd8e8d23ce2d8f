"""Showing a scoring as it runs: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Throughput"]

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Throughput:
    """Counts texts and tokens as they are scored and says how fast that goes.

    Parameters
    ----------
    total:
        Texts to score.
    console:
        Where to draw the bar; it appears only on a terminal.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._total, self.texts, self.tokens = total, 0, 0
        self._started = self._said = time.perf_counter()
        console = console or Console(stderr=True)
        columns = (
            TextColumn("sentiment"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("sentiment", total=total, rate="")

    def __enter__(self) -> Throughput:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def rate(self) -> str:
        """Texts and tokens a second since the start, in words."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return f"{self.texts / seconds:,.0f} texts/s, {self.tokens / seconds:,.0f} tokens/s"

    def add(self, texts: int, tokens: int) -> None:
        """Count a finished block."""
        self.texts, self.tokens = self.texts + texts, self.tokens + tokens
        self._bar.update(self._task, completed=self.texts, rate=self.rate)
        now = time.perf_counter()
        if now - self._said >= _SECONDS_BETWEEN_LINES or self.texts == self._total:
            self._said = now
            _log.info("sentiment: %d of %d texts, %s", self.texts, self._total, self.rate)
