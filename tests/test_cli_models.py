"""``marketray models``: every command on both stores, exit codes, JSON and words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from marketray.evaluation.stage import Selection
from marketray.registry import Registry
from marketray.settings import Settings, load_settings
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's files, as small as they can be."""
    monkeypatch.setattr(
        "marketray.registry.save_pyfunc", lambda path, native, _: shutil.copytree(native, path)
    )
    folder = tmp_path / "version"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"family": "ar", "columns": ["a"]}))
    return folder


@pytest.fixture
def registry(settings_of_store: Settings, folder: Path) -> Registry:
    """Version 1 is champion by bootstrap, 2 was judged better, 3 was not."""
    registry = Registry(settings_of_store)
    for number, evidence in enumerate((EVIDENCE, BETTER, CHALLENGER), start=1):
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
        ("list",): [
            registry.name,
            "version",
            "stage",
            "Production",
            "champion",
            "bootstrap",
            "r2_oos_pct",
            "-0.03",
            "0.41",
        ],
        ("promote", "champion"): [
            "nothing changed: version 1 is the champion already\n",
            ", select by",
        ],
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
        ("compare", "champion", "7"): (1, "Hint: there are versions 3, 2, 1; aliases champion (version 1)"),
        ("compare", "1", "nobody"): (1, "no version or alias 'nobody'"),
        ("promote", "1", "--alias", "archived"): (2, "'archived' is not one of"),
        ("promote",): (2, "Missing argument"),
        ("rollback",): (1, "required: a champion before the present one"),
    }
    for arguments, (code, message) in refused.items():
        got, error = models(*arguments)
        assert (got, message in error) == (code, True), error


def test_without_settings_every_registered_model_is_listed(
    tracked_home: Path,
    folder: Path,
    models: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models("list") == (0, [])
    assert cli(monkeypatch, "models", "list") == 0
    assert "no model is registered yet; `marketray run` registers the first" in capsys.readouterr().out
    names = ["marketray-DAX", "marketray-SPX500_USD_of_another_broker"]
    for name in reversed(names):
        registry = Registry(load_settings(), name)
        registry.register(folder, key=name, evidence=EVIDENCE)
        registry.set_alias("champion", 1)
    monkeypatch.setenv("COLUMNS", "80")
    assert [(v["name"], v["version"], v["aliases"]) for v in models("list")[1]] == [
        (name, 1, ["champion"]) for name in names
    ]
    assert cli(monkeypatch, "models", "list") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("marketray")] == names
    assert max(map(len, printed)) <= 80

    config = tracked_home / "dax.yaml"
    config.write_text("instrument: DAX\n")
    assert [v["name"] for v in models("list", "--config", str(config))[1]] == names[:1]
    config.write_text("instrument: FTSE\n")
    assert cli(monkeypatch, "models", "list", "--config", str(config)) == 0
    assert capsys.readouterr().out == "marketray-FTSE: no version is registered\n"
    code, error = models("show", "--config", str(config))
    assert (code, f"Hint: there are models {', '.join(names)}; name the settings" in error) == (1, True)


@pytest.mark.parametrize(
    ("verdict", "alias", "declined", "code", "words"),
    [
        ("promoted", "champion", None, 0, ""),
        (
            "promoted",
            None,
            "it was judged against champion 1",
            3,
            "version 7 is not the champion: it was judged",
        ),
        ("challenger", "challenger", None, 3, "the verdict is 'challenger'; required: 'promoted'"),
    ],
)
def test_a_required_promotion_is_one_of_the_alias(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: str,
    alias: str | None,
    declined: str | None,
    code: int,
    words: str,
) -> None:
    chosen = Selection("ar", 7, verdict, alias, declined, 0.01, 0.001, 1, 0.025, "report.html", False)
    monkeypatch.setattr("marketray.cli._connect", lambda _: None)
    monkeypatch.setattr("marketray.pipeline.run_stage", lambda *_: chosen)
    assert cli(monkeypatch, "select") == 0
    assert (declined or "alias_declined  –") in " ".join(capsys.readouterr().out.split("\n"))
    assert cli(monkeypatch, "select", "--require-promotion", "--json") == code
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["verdict"], told["alias"], told["alias_declined"]) == (verdict, alias, declined)
    assert words in printed.err
