"""One small pipeline run through the real command line, shared by the end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SMALL = {
    "name": "small",
    "instrument": "SIM500_USD",
    "source": {"kind": "simulator", "bars": 24_000, "seed": 3, "market_r2": 0.2},
    "tuning": {"stage1_trials": 2, "stage2_trials": 1, "max_rounds": 200},
}


@dataclass(frozen=True)
class Shell:
    """Runs commands as a user would, from a folder that is not the project's."""

    home: Path
    config: Path

    def environment(self) -> dict[str, str]:
        """The caller's environment with this home and without another cluster or tracking server."""
        kept = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "MLFLOW_TRACKING_URI"}}
        return {**kept, "MARKETRAY_HOME": str(self.home), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

    def marketray(self, *arguments: str, code: int = 0) -> str:
        """Run ``marketray``; its output, or its errors where the required exit `code` is not 0."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "marketray"), *arguments],
            cwd=self.home,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr[-4000:]
        return done.stderr if code else done.stdout

    def json(self, *arguments: str) -> Any:
        """Run ``marketray … --config … --json``; the parsed last line."""
        printed = self.marketray(*arguments, "--config", str(self.config), "--json")
        return json.loads(printed.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A fresh home with the small configuration."""
    home = tmp_path_factory.mktemp("home")
    config = home / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    return Shell(home, config)


@pytest.fixture(scope="session")
def first_run(shell: Shell) -> Any:
    """The JSON summary of ``marketray run`` on the small configuration."""
    return shell.json("run")
