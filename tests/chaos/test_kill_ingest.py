"""An ingest killed with SIGKILL at any moment and run again ends byte-equal to one that was left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marketray.lake import Lake
from tests.ingest.made_bars import as_text, ingest, minutes, tree

DAYS = 100
INGEST = """
import sys
from tests.ingest.made_bars import ingest
from pathlib import Path
print("ready", flush=True)
ingest(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start(home: Path, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INGEST, str(home), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def half_bad(path: Path, days: int) -> Path:
    """Bars of which every 50th has a low above its high."""
    lines = as_text(minutes(days * 1_440)).write_csv().splitlines()
    for i in range(40, len(lines), 50):
        fields = lines[i].split(",")
        lines[i] = ",".join([*fields[:3], "999", *fields[4:]])
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_and_repeated_is_equal_to_undisturbed(home: Path, rounds: int) -> None:
    path = half_bad(home / "bars.csv", DAYS)
    process = start(home / "alone", path)
    ready = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    seconds = time.monotonic() - ready
    expected = tree(home / "alone" / "lake")
    assert len([name for name in expected if name.startswith("bronze")]) == 5
    rng = random.Random(11)
    killed = home / "killed"
    for round_ in range(rounds):
        process = start(killed, path)
        time.sleep(seconds * (round_ + rng.random()) / rounds)
        process.kill()
        process.communicate()
        for name, data in tree(killed / "lake").items():
            if name.startswith(("bronze", "quarantine")) and name.endswith("part.parquet"):
                assert data == expected[name], f"{name} was half-written"
    stored = {
        p["month"]: (killed / f"lake/bronze/bars/instrument=TEST/month={p['month']}/part.parquet").stat()
        for p in Lake(str(killed / "lake")).partitions("bronze/bars")
    }
    result = ingest(killed, path)
    assert tree(killed / "lake") == expected
    assert result.written + result.skipped == 10
    for month, before in stored.items():  # finished partitions were not written again
        after = (killed / f"lake/bronze/bars/instrument=TEST/month={month}/part.parquet").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("files", range(0, 40, 8))
def test_stopped_after_any_file_and_repeated_is_equal(
    home: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where a lake that holds an older file is refreshed, stopped before the n-th file."""
    path = half_bad(home / "bars.csv", 62)
    ingest(home / "alone", path)
    expected = tree(home / "alone" / "lake")
    (home / "short").mkdir()
    short = half_bad(home / "short" / "bars.csv", 40)
    ingest(home / "stopped", short)

    class Stopped(BaseException):
        """Not an Exception: nothing may clean up after it."""

    count = iter(range(10**6))
    original = Lake._replace

    def replace(self: Lake, target: str, put: object) -> None:
        if next(count) == files:
            raise Stopped
        original(self, target, put)

    monkeypatch.setattr(Lake, "_replace", replace)
    monkeypatch.setattr("marketray.ingest.intake.discard_staging", lambda *_: None)
    try:
        ingest(home / "stopped", path)
    except Stopped:
        pass
    else:
        assert files > 14
    monkeypatch.undo()
    ingest(home / "stopped", path)
    found = tree(home / "stopped" / "lake")
    assert found == expected
    assert json.loads(found["manifests/ingest/TEST.json"])["rows_in"] == 62 * 1_440
