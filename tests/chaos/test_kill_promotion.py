"""Kill a process that moves the champion back and forth: there is always one, and the record knows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketray.registry import Registry
from marketray.settings import Settings

MOVER = """
import json, os, random, signal, sys, time
from marketray.promotion import promote
from marketray.registry import Registry
from marketray.settings import load_settings
from marketray.tracking import connect_tracking

kills = int(sys.argv[1])
settings, draw = load_settings(), random.Random(5)
connect_tracking(settings)  # imports everything once, before the forks
for _ in range(kills):
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        registry = Registry(settings)
        while True:
            began = time.monotonic()
            target = 3 - registry.champion().version
            promote(registry, target, "champion", force=True, reason="chaos")
            os.write(told, f"{time.monotonic() - began:9.4f}".encode())
    os.read(heard, 9)  # the first move, slow since it connects
    move = float(os.read(heard, 9))
    time.sleep(draw.uniform(0.0, 3.0) * move)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    registry = Registry(settings)
    standing = registry.standing()
    native = registry._client.get_registered_model(registry.name).aliases
    print(json.dumps({
        "native": native,
        "champion": [v.version for v in registry.list() if "champion" in v.aliases],
        "last": list(standing.notes.values())[-1]["version"],
        "moves": len(standing.notes),
        "unfinished": len(standing.unfinished),
    }), flush=True)
"""


def check(settings: Settings, tmp_path: Path, kills: int) -> None:
    registry = Registry(settings)
    for key in ("1", "2"):
        folder = tmp_path / "versions" / key
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"family": "ar", "columns": ["a"]}))
        registry.register(folder, key=key, evidence={"verdict": "promoted", "alias": "champion"})
    registry.set_alias("champion", 1)
    done = subprocess.run(
        [sys.executable, "-c", MOVER, str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == kills
    for state in seen:
        assert int(state["native"]["champion"]) in (1, 2)
        assert state["champion"] == [state["last"]]
        assert state["unfinished"] <= 1
    assert seen[-1]["moves"] > 2 * kills  # it did move
    registry.set_alias("shadow", 3 - seen[-1]["last"])
    standing = registry.standing()
    native = registry._client.get_registered_model(registry.name).aliases
    assert standing.aliases == {alias: int(version) for alias, version in native.items()}
    assert standing.unfinished == ()
    line = [note["version"] for note in standing.notes.values() if note["alias"] == "champion"]
    assert line == [1 + i % 2 for i in range(len(line))]  # back and forth, none lost, none twice


@pytest.fixture
def settings(settings_of_store: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(
        "marketray.registry.save_pyfunc", lambda path, native, _: shutil.copytree(native, path)
    )
    return settings_of_store


def test_a_mover_killed_four_times_leaves_one_champion(settings: Settings, tmp_path: Path) -> None:
    check(settings, tmp_path, kills=4)


@pytest.mark.slow
def test_a_mover_killed_a_hundred_times_leaves_one_champion(settings: Settings, tmp_path: Path) -> None:
    check(settings, tmp_path, kills=100)
