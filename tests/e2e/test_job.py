"""``ray job submit`` against a cluster started with ``ray start --head``: nothing done twice, and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Jobs, Shell, contents, in_process

pytestmark = pytest.mark.timeout(900)  # the first to ask for the run waits for all of it


def test_a_second_run_as_a_job_writes_no_partition_trains_nothing_and_registers_nothing(
    jobs: Jobs,
    shell: Shell,
    first_run: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert jobs.again.returncode == 0, jobs.again.stdout[-4000:]
    assert "succeeded" in jobs.again.stdout
    assert f"Ray dashboard: {jobs.dashboard}" in jobs.again.stdout
    assert contents(shell.home) == jobs.before
    assert jobs.summary["selection"] == first_run["selection"]
    for stage in ("ingest", "features", "dataset"):
        assert first_run["stages"][stage]["written"] > 0
        assert jobs.summary["stages"][stage]["written"] == 0
    monkeypatch.setenv("MARKETRAY_HOME", str(shell.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert in_process(monkeypatch, "models", "list", "--config", str(shell.config), "--json") == 0
    assert [m["version"] for m in json.loads(capsys.readouterr().out)] == [1]


def test_a_job_that_fails_ends_with_its_message_and_hint(jobs: Jobs) -> None:
    assert jobs.failed.returncode != 0
    assert "error: " in jobs.failed.stdout
    assert "/absent/bars.csv" in jobs.failed.stdout
    assert "Hint: " in jobs.failed.stdout
    assert "Traceback" not in jobs.failed.stdout
