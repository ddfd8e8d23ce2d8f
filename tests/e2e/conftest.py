"""One small pipeline run through the real command line, and the same as a job, shared by all tests here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from marketray.cli import main
from tests.e2e.deployment import Deployment, deploy
from tests.ray_head import ray_head

SMALL = {
    "name": "small",
    "instrument": "SIM500_USD",
    "source": {"kind": "simulator", "bars": 14_000, "seed": 3, "market_r2": 0.2},
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


@dataclass(frozen=True)
class Jobs:
    """What ``ray job submit`` and ``serve deploy`` led to on one cluster, after the first run.

    Attributes
    ----------
    dashboard:
        Address of the cluster's dashboard.
    before:
        `contents` of the home that the first run left.
    again, failed:
        The whole pipeline once more, and an ingest of a file that is not there.
    deployment:
        Of the first run's model.
    """

    dashboard: str
    before: dict[str, str]
    again: subprocess.CompletedProcess[str]
    failed: subprocess.CompletedProcess[str]
    deployment: Deployment

    @property
    def summary(self) -> Any:
        """The JSON that the repeated pipeline printed."""
        return json.loads(next(line for line in self.again.stdout.splitlines() if line.startswith("{")))


def contents(home: Path) -> dict[str, str]:
    """Every file of the lake and of the runs -> digest."""
    found = sorted(p for name in ("lake", "runs") for p in (home / name).rglob("*") if p.is_file())
    return {str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


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


@pytest.fixture(scope="session")
def jobs(shell: Shell, first_run: Any) -> Jobs:
    """The jobs on a cluster of their own, which is gone afterwards: it would cost the other tests time."""
    before = contents(shell.home)
    broken = shell.home / "broken.yaml"
    source = {"kind": "files", "paths": ["/absent/bars.csv"], "timezone": "UTC"}
    broken.write_text(yaml.safe_dump({"instrument": "BROKEN", "source": source}))
    with ray_head() as head:
        again, failed = (
            head.submit("python", f"jobs/{script}.py", "--config", str(config), home=home)
            for script, config, home in (
                ("pipeline", shell.config, shell.home),
                ("ingest", broken, shell.home / "other"),
            )
        )
        deployed = deploy(head, shell.home, Path(first_run["selection"]["model_path"]), SMALL)
    return Jobs(head.dashboard, before, again, failed, deployed)


def in_process(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``marketray`` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["marketray", *arguments])
    try:
        main()
    except SystemExit as e:
        return int(e.code or 0)
    return 0
