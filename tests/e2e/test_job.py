"""``ray job submit`` of the whole pipeline against a cluster started with ``ray start --head``."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import Shell
from tests.ray_head import Head


def test_the_pipeline_job_succeeds_and_its_model_is_listed_from_elsewhere(
    head: Head, shell: Shell, first_run: Any
) -> None:
    done = head.submit("python", "jobs/pipeline.py", "--config", str(shell.config), home=shell.home)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "succeeded" in done.stdout
    assert f"Ray dashboard: {head.dashboard}" in done.stdout
    assert [m["version"] for m in shell.json("models", "list")] == [1]


def test_the_job_fails_when_a_stage_fails(head: Head, shell: Shell) -> None:
    broken = shell.home / "broken.yaml"
    broken.write_text(
        "name: broken\ninstrument: BROKEN\nsource: {kind: files, paths: [/absent/bars.csv], timezone: UTC}\n"
    )
    done = head.submit("python", "jobs/pipeline.py", "--config", str(broken), home=shell.home)
    assert done.returncode != 0
    assert "/absent/bars.csv" in done.stdout
    assert "Traceback" not in done.stdout
