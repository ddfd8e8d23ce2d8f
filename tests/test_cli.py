"""The command line: start-up time, exit codes, one clear message for bad input."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from marketray.cli import main


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``marketray *arguments`` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["marketray", *arguments])
    try:
        main()
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def test_help_answers_in_half_a_second() -> None:
    command = [str(Path(sys.executable).parent / "marketray"), "--help"]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert "run" in done.stdout
    assert min(seconds) <= 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--config", "/absent.yaml"], "--config /absent.yaml: cannot be read"),
        (["run", "--timezone", "UTC"], "required: --bars FILE as well"),
        (["run", "--bars", "a.csv", "--column", "time"], "--column: got 'time'; required: NAME=VALUE"),
        (["run", "--bars", "a.csv", "--select", "AAPL"], "--select: got 'AAPL'; .*--select symbol=AAPL"),
        (["run", "--select", "symbol=AAPL"], "required: --bars FILE as well"),
        (["run", "--bars", "a.csv", "--stamp", "middle"], "'open' or 'close'.*got 'middle'"),
        (["run", "--instrument", "a/b"], "got 'a/b'; required: letters"),
        (["predict", "--bars", "/absent.json"], "--bars /absent.json: not a readable JSON file"),
        (["tune", "--nope"], "No such option: --nope"),
        (["bake"], "No such command 'bake'"),
    ],
)
def test_bad_usage_exits_2_with_one_clear_message(
    home: Path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    assert cli(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    import re

    assert re.search(message, printed.err, re.DOTALL)


def test_bars_in_json_must_be_a_list(home: Path, monkeypatch, capsys) -> None:
    (home / "bars.json").write_text("{}")
    assert cli(monkeypatch, "predict", "--bars", str(home / "bars.json")) == 2
    assert "got a dict; required: a list of bars" in capsys.readouterr().err


def test_bars_that_are_no_text_are_named(home: Path, monkeypatch, capsys) -> None:
    (home / "bars.json").write_bytes(b"\xff\x80")
    assert cli(monkeypatch, "predict", "--bars", str(home / "bars.json")) == 2
    assert "bars.json: not a readable JSON file" in capsys.readouterr().err


def test_debug_shows_the_traceback_in_any_position(home: Path, monkeypatch) -> None:
    from marketray.errors import SettingsError

    for arguments in (["--debug", "tune", "--config", "/x"], ["tune", "--config", "/x", "--debug"]):
        with pytest.raises(SettingsError, match="/x: cannot be read"):
            cli(monkeypatch, *arguments)
