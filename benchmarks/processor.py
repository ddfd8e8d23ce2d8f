"""How much processor time a benchmark's processes used."""

from __future__ import annotations

import os
import threading

import psutil


class ProcessorTime(threading.Thread):
    """Samples the processor time of this process and its descendants every 0.2 s until `stop`.

    Ray's workers are no children that this process waits for, so ``getrusage`` does not count them. What a
    process used after its last sample is missed.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._before: dict[int, float] = {}
        self._latest: dict[int, float] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        self._sample(self._before)
        while not self._stopped.wait(0.2):
            self._sample(self._latest)

    def stop(self) -> float:
        """End sampling; seconds since the start, user and system, of all the processes together."""
        self._stopped.set()
        self.join()
        self._sample(self._latest)
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._latest.items())

    @staticmethod
    def _sample(into: dict[int, float]) -> None:
        me = psutil.Process(os.getpid())
        for process in (me, *me.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            into[process.pid] = times.user + times.system
