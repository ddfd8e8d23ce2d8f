"""Scripts of jobs/: exit codes and messages; tests/e2e/test_job.py submits them to a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketray.errors import QualityError
from marketray.job import run_job
from marketray.pipeline import STAGES
from tests.ray_head import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def test_every_stage_has_its_script() -> None:
    inference = {"batch_inference", "online_inference"}
    assert set(SCRIPTS) == {"pipeline", "promote", "backtest", *inference, *STAGES} - {"select"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--config", "gone.yaml"], "error: --config gone.yaml: cannot be read (No such file"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job("ingest", "Text.", arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_failed_stage_exits_1_with_message_and_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        msg = "bars: too few"
        raise QualityError(msg, hint="send more")

    monkeypatch.setattr("marketray.job._run", failing)
    with pytest.raises(SystemExit) as ended:
        run_job("ingest", None, [])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: bars: too few\nHint: send more\n"
    with pytest.raises(QualityError, match="bars: too few"):
        run_job("ingest", None, ["--debug"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_only_name_their_stage(script: str) -> None:
    source = (ROOT / "jobs" / f"{script}.py").read_text()
    assert f"jobs/{script}.py --config" in source
    stage = {"pipeline": "None", "promote": '"select"'}.get(script, f'"{script}"')
    assert f"run_job({stage}, __doc__)" in source
    assert len(source.splitlines()) <= 15


def test_script_runs_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "tune.py", "--config", "gone.yaml"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: --config gone.yaml: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
