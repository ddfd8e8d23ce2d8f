"""``marketray models``: every command on both stores, exit codes, JSON and words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from marketray.registry import Registry
from marketray.settings import Settings
from tests.test_cli import cli

EVIDENCE = {
    "verdict": "bootstrap",
    "alias": "champion",
    "r2_oos": -0.0003,
    "p_value": 0.41,
    "reasons": ["weak"],
}
BETTER = {**EVIDENCE, "verdict": "promoted", "r2_oos": 0.02, "p_value": 0.004, "champion_version": 1}
CHALLENGER = {**EVIDENCE, "verdict": "challenger", "alias": "challenger", "champion_version": 1}


@pytest.fixture
def registry(settings_of_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1 is champion by bootstrap, 2 was judged better, 3 was not."""
    monkeypatch.setattr(
        "marketray.registry.save_pyfunc", lambda path, native, _: shutil.copytree(native, path)
    )
    registry = Registry(settings_of_store)
    for number, evidence in enumerate((EVIDENCE, BETTER, CHALLENGER), start=1):
        folder = tmp_path / "versions" / str(number)
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"family": "ar", "columns": ["a"]}))
        tags = {"marketray.data_hash": "d", "marketray.test_rmse_pct": str(number)}
        registry.register(folder, key=str(number), evidence=evidence, tags=tags)
        if number == 1:
            registry.set_alias("champion", 1, {"action": "select"})
    return registry


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command with --json; its exit code and parsed answer, or the error's text."""

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli(monkeypatch, "models", *arguments, "--json")
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, json.loads(printed.out) if code == 0 else printed.err

    return run


def test_a_week_with_the_registry(registry: Registry, models: Any) -> None:
    code, listed = models("list")
    assert code == 0
    assert [(v["version"], v["stage"], v["aliases"]) for v in listed] == [
        (3, "None", []),
        (2, "None", []),
        (1, "Production", ["champion"]),
    ]
    assert listed[1]["evidence"] == BETTER
    assert models("show")[1]["version"] == 1
    code, compared = models("compare", "champion", "2")
    assert [v["version"] for v in compared["versions"]] == [1, 2]
    assert compared["same"]["data_hash"] is True
    assert compared["difference"] == {"test_rmse_pct": 1.0}
    assert compared["judged"] == {"champion": 1, "challenger": 2, "r2": None, "p_value": None}

    code, error = models("promote", "3")
    assert code == 3
    assert "the gate's verdict is 'challenger'; required: 'promoted' (weak)" in error
    assert models("promote", "3", "--alias", "challenger")[1]["alias"] == "challenger"
    assert models("promote", "2", "--alias", "shadow")[1]["changes"] == {"shadow": 2}
    code, note = models("promote", "shadow", "--reason", "better for a week")
    assert (code, note["version"], note["reason"]) == (0, 2, "better for a week")
    assert models("summary")[1]["stages"] == {"Production": 1, "Staging": 1, "Archived": 1}

    assert models("rollback")[1]["version"] == 1
    assert models("rollback", "--version", "2", "--reason", "no")[1]["previous"] == 1
    code, error = models("rollback", "--version", "3")
    assert code == 1
    assert "required: version 3 to have been one" in error
    code, error = models("promote", "3", "--force")
    assert code == 2
    assert "--force without --reason" in error
    assert models("promote", "3", "--force", "--reason", "drill")[1]["overruled"].startswith("the gate's")

    notes = models("history")[1]
    assert [(n["action"], n["alias"], n["version"]) for n in notes] == [
        ("select", "champion", 1),
        ("promote", "challenger", 3),
        ("promote", "shadow", 2),
        ("promote", "champion", 2),
        ("rollback", "champion", 1),
        ("rollback", "champion", 2),
        ("promote", "champion", 3),
    ]
    assert all(n["data_hash"] == "d" and n["by"] and n["at"] for n in notes)


def test_every_command_has_words_for_people(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {
        ("list",): ["version", "stage", "Production", "champion", "bootstrap", "-0.0003", "0.41"],
        ("show", "2"): ["verdict", "promoted", "0.004"],
        ("compare", "1", "2"): ["bootstrap", "promoted", "difference"],
        ("summary",): ["Production", "champion", "moves", "select"],
        ("history",): ["select", "champion", "bootstrap"],
        ("promote", "2"): ["promote", "champion"],
        ("rollback",): ["rollback"],
    }
    for arguments, words in shown.items():
        assert cli(monkeypatch, "models", *arguments) == 0
        printed = capsys.readouterr().out
        assert [word for word in words if word not in printed] == []
        assert max(map(len, printed.splitlines())) <= 80


def test_what_cannot_be_done_says_why(registry: Registry, models: Any) -> None:
    refused = {
        ("show", "9"): (1, "no version or alias '9'"),
        ("compare", "1", "nobody"): (1, "no version or alias 'nobody'"),
        ("promote", "1", "--alias", "archived"): (2, "'archived' is not one of"),
        ("promote",): (2, "Missing argument"),
        ("rollback",): (1, "required: a champion before the present one"),
    }
    for arguments, (code, message) in refused.items():
        got, error = models(*arguments)
        assert (got, message in error) == (code, True), error
