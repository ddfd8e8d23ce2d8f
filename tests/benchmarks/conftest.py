"""Benchmarks on the tests' Ray, which a process of their own would have to start."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def last_line(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a benchmark's ``main`` with options; the parsed last line that it printed."""
    import ray

    monkeypatch.setattr(ray, "shutdown", lambda: None)  # other tests go on with this Ray
    monkeypatch.setenv("MARKETRAY_HOME", str(tmp_path))  # set by some benchmarks, and given back here

    def run(main: Callable[[], None], *options: str) -> Any:
        monkeypatch.setattr(sys, "argv", [main.__module__, *options])
        main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run
