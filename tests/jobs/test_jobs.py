"""Scripts of jobs/: exit codes and messages, alone and through `ray job submit`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketray.errors import QualityError
from marketray.job import run_job
from marketray.pipeline import STAGES
from tests.ray_head import ROOT, Head

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


def test_jobs_on_a_cluster(head: Head, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("source: {kind: simulator, bars: 10000}\nquality: {min_coverage: 0.1}\n")
    home = tmp_path / "home"
    done = head.submit("python", "jobs/ingest.py", "--config", str(config), home=home)
    assert done.returncode == 0, done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    assert json.loads(line)["rows_out"] > 9_000
    assert f"Ray dashboard: {head.dashboard}" in done.stdout
    assert list((home / "lake" / "bronze" / "bars").rglob("part.parquet"))

    config.write_text("source: {kind: files, paths: [/nowhere/bars.csv]}\n")
    done = head.submit("python", "jobs/ingest.py", "--config", str(config), home=tmp_path / "other")
    assert done.returncode != 0
    assert "error: " in done.stdout
    assert "/nowhere/bars.csv" in done.stdout
    assert "Hint: " in done.stdout
    assert "Traceback" not in done.stdout
