"""How much memory a benchmark's largest process held."""

from __future__ import annotations

import os
import threading

import psutil


class PeakMemory(threading.Thread):
    """Samples the resident set of this process and its descendants every 0.2 s until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        me = psutil.Process(os.getpid())
        while not self._stopped.wait(0.2):
            for process in (me, *me.children(recursive=True)):
                try:
                    self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    def stop(self) -> float:
        """End sampling; the peak of any one process in MB."""
        self._stopped.set()
        self.join()
        return self.peak_bytes / 1e6
