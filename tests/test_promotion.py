"""Promoting and rolling back: the evidence decides, the record keeps all, on both stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from marketray.aliases import changes_of
from marketray.errors import RefusedError, RegistryError, SettingsError
from marketray.overview import compare, row, summary
from marketray.promotion import champions, promote, roll_back
from marketray.registry import Registry
from marketray.settings import Settings
from marketray.tracking import connect_tracking
from tests.mortal_client import Killed, MortalClient, champion_of, native_aliases

PROMOTED = {"verdict": "promoted", "alias": "champion", "r2_oos": 0.04, "p_value": 0.001, "k": 1}
BOOTSTRAP = {**PROMOTED, "verdict": "bootstrap", "r2_oos": -0.01, "p_value": 0.4, "reasons": ["no skill"]}
CHALLENGER = {**BOOTSTRAP, "verdict": "challenger", "alias": "challenger"}
REFUSED = {**BOOTSTRAP, "verdict": "refused", "alias": None, "reasons": ["evidence is missing: few rows"]}
TAGS = {
    "marketray.data_hash": "d1",
    "marketray.catalog_hash": "c1",
    "marketray.code_hash": "code",
    "marketray.revision": "abc123",
    "marketray.instrument": "SPX",
    "marketray.trials": json.dumps({"counted": 45, "pruned": 12, "earlier": 0}),
    "marketray.test_rmse_pct": "0.07",
}


@pytest.fixture
def settings(settings_of_store: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(
        "marketray.registry.save_pyfunc", lambda path, native, _: shutil.copytree(native, path)
    )
    return settings_of_store


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


def add(registry: Registry, tmp_path: Path, evidence: dict[str, Any], **tags: str) -> int:
    """Register a version with this evidence; its number."""
    key = str(len(registry.list()) + 1)
    folder = tmp_path / "versions" / key
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"family": "ar", "columns": ["a"]}))
    named = {f"marketray.{name}": text for name, text in tags.items()}
    return registry.register(folder, key=key, evidence=evidence, tags={**TAGS, **named}).version


def test_a_life_from_registered_to_archived_and_back(registry: Registry, tmp_path: Path) -> None:
    v1 = add(registry, tmp_path, BOOTSTRAP)
    v2 = add(registry, tmp_path, {**PROMOTED, "champion_version": v1})
    assert [found.stage for found in registry.list()] == ["None", "None"]
    promote(registry, v1)
    promote(registry, v2, "challenger")
    promote(registry, v2, "shadow")
    assert {f.version: f.stage for f in registry.list()} == {v1: "Production", v2: "Staging"}
    note = promote(registry, "challenger", reason="  live for a week ")
    assert {f.version: (f.stage, f.aliases) for f in registry.list()} == {
        v1: ("Archived", ("archived",)),
        v2: ("Production", ("champion",)),
    }
    assert {f.version: f.tags["marketray.stage"] for f in registry.list()} == {
        v1: "Archived",
        v2: "Production",
    }
    expected = {
        "action": "promote",
        "alias": "champion",
        "version": v2,
        "previous": v1,
        "reason": "live for a week",
        "data_hash": "d1",
        "catalog_hash": "c1",
        "code_hash": "code",
        "revision": "abc123",
        "trials": {"counted": 45, "pruned": 12, "earlier": 0},
        "verdict": "promoted",
        "p_value": 0.001,
        "champion_version": v1,
        "overruled": None,
        "changes": {"champion": v2, "archived": v1, "challenger": None, "shadow": None},
    }
    assert {key: note[key] for key in expected} == expected
    assert note["by"]
    assert note["at"].endswith("+00:00")
    assert {**registry.history()[-1], "changed": True} == note
    assert promote(registry, v2) == {**note, "changed": False}  # again: nothing moves, nothing is noted
    back = roll_back(registry, reason="alerts")
    assert (back["action"], back["version"], back["previous"], back["reason"]) == (
        "rollback",
        v1,
        v2,
        "alerts",
    )
    assert {f.version: f.stage for f in registry.list()} == {v1: "Production", v2: "Archived"}
    assert len(registry.history()) == 5


def test_roll_back_goes_on_down_the_line_and_to_any_former_champion(
    registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(
        RegistryError, match=r"the champion is none, former ones are \[\]; required: a champion"
    ):
        roll_back(registry)
    for version in range(1, 5):
        before = {"champion_version": version - 1 or None}
        assert add(registry, tmp_path, {**PROMOTED, **before}) == version
        if version < 4:
            promote(registry, version)
    assert roll_back(registry)["version"] == 2
    assert roll_back(registry)["version"] == 1
    with pytest.raises(
        RegistryError, match=r"the champion is 1, former ones are \[2, 3\]; required: a champion bef"
    ):
        roll_back(registry)
    assert roll_back(registry, 3)["version"] == 3
    for version in (3, 4, 9):
        with pytest.raises(RegistryError, match=f"required: version {version} to have been one"):
            roll_back(registry, version)
    with pytest.raises(SettingsError, match="--reason has 1001 characters; required: at most 1000"):
        roll_back(registry, reason="x" * 1_001)


def test_the_evidence_decides_and_force_is_kept_in_the_record(registry: Registry, tmp_path: Path) -> None:
    first = add(registry, tmp_path, BOOTSTRAP)
    refused = add(registry, tmp_path, REFUSED)
    challenger = add(registry, tmp_path, {**CHALLENGER, "champion_version": first})
    stale = add(registry, tmp_path, {**PROMOTED, "champion_version": None})
    for alias in ("champion", "challenger", "shadow"):
        with pytest.raises(RefusedError, match=f"may not become {alias}: its evidence is missing .*few rows"):
            promote(registry, refused, alias)
    with pytest.raises(RefusedError, match=r"verdict is 'challenger'; required: 'promoted' \(no skill\)"):
        promote(registry, challenger)
    promote(registry, first)  # bootstrap, and there is no champion
    promote(registry, challenger, "challenger")
    with pytest.raises(
        RefusedError, match="judged while there was no champion, the champion is now version 1"
    ):
        promote(registry, stale)
    with pytest.raises(RegistryError, match="version 1 is the champion; required: another one as shadow"):
        promote(registry, first, "shadow")
    with pytest.raises(SettingsError, match="--force without --reason"):
        promote(registry, refused, force=True)
    with pytest.raises(
        SettingsError, match="alias='archived'; required: one of champion, challenger, shadow"
    ):
        promote(registry, refused, "archived")
    assert champion_of(registry._settings) == first
    note = promote(registry, refused, force=True, reason="drill")
    assert note["reason"] == "drill"
    assert note["overruled"].startswith("its evidence is missing")
    with pytest.raises(RefusedError, match="verdict is 'bootstrap'; required: 'promoted'") as caught:
        promote(registry, first)  # there is a champion now
    assert caught.value.exit_code == 3


def test_the_longest_note_fits_the_store(registry: Registry, tmp_path: Path) -> None:
    long = ["R² over zero ist “so lala”; required: mehr " * 20] * 20
    version = add(registry, tmp_path, {**REFUSED, "reasons": long})
    note = promote(registry, version, force=True, reason='"ü' * 500)
    assert [{**found, "changed": True} for found in registry.history()] == [note]
    assert note["overruled"].startswith("its evidence is missing (R² over zero")
    with pytest.raises(SettingsError, match="--reason has 1001 characters"):
        promote(registry, version, force=True, reason="x" * 1_001)


def test_a_move_killed_before_any_write_has_happened_or_not_and_is_completed_by_the_next(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(settings)
    versions = [add(registry, tmp_path, PROMOTED) for _ in range(3)]
    promote(registry, 1)
    noted = len(registry.history())
    for last in range(1, 100):
        now = champion_of(settings)
        target, bystander = [v for v in versions if v != now]
        registry.set_alias("challenger", target)
        noted += 1
        client = MortalClient(connect_tracking(settings), last)
        with monkeypatch.context() as patch:
            patch.setattr("marketray.registry.connect_tracking", lambda _, mortal=client: mortal)
            try:
                promote(Registry(settings), target, force=True, reason="chaos")
            except Killed:
                pass
            else:
                break
        standing = Registry(settings).standing()
        happened = len(standing.notes) == noted + 1
        assert happened == (last > 1)  # the note is the commit
        assert native_aliases(settings)["champion"] in (now, target)
        assert standing.aliases == (
            {"champion": target, "archived": now}
            if happened
            else {**native_aliases(settings), "champion": now, "challenger": target}
        )
        assert champion_of(settings) == (target if happened else now)
        # the next move, another one, first carries out what was begun
        registry.set_alias("shadow", bystander)
        noted += 1 + happened
        aliases = native_aliases(settings)
        assert aliases == registry.standing().aliases
        assert (aliases["champion"], aliases["shadow"]) == (target if happened else now, bystander)
        assert registry.standing().unfinished == ()
        assert len(registry.history()) == noted
        promote(registry, bystander, force=True, reason="on to the next")
        noted += 1
    assert client.writes == last - 1 >= 6  # note, three aliases, two stages, mark
    tags = {found.version: found.tags["marketray.stage"] for found in registry.list()}
    assert tags == {found.version: found.stage for found in registry.list()}


def test_an_alias_moved_in_mlflow_itself_is_taken_and_reported(registry: Registry, tmp_path: Path) -> None:
    v1, v2 = (add(registry, tmp_path, PROMOTED) for _ in range(2))
    promote(registry, v1)
    assert summary(registry)["unrecorded"] == {}
    registry._client.set_registered_model_alias(registry.name, "champion", str(v2))
    assert champion_of(registry._settings) == v2
    assert summary(registry)["unrecorded"] == {"champion": {"now": v2, "recorded": v1}}
    assert promote(registry, "champion")["changed"]  # what was moved past the record goes into it
    assert summary(registry)["unrecorded"] == {}
    assert promote(registry, "champion")["action"] == registry.history()[-1]["action"] == "adopt"
    assert [n["version"] for n in registry.history()] == [v1, v2]


def test_two_versions_side_by_side(registry: Registry, tmp_path: Path) -> None:
    v1 = add(registry, tmp_path, PROMOTED)
    judged = {"champion_version": v1, "champion_r2": 0.01, "champion_p_value": 0.02}
    v2 = add(registry, tmp_path, {**PROMOTED, **judged}, test_rmse_pct="0.065")
    v3 = add(registry, tmp_path, PROMOTED, data_hash="d2")
    found = compare(registry, v1, v2)
    assert found["same"] == {"instrument": True, "data_hash": True, "catalog_hash": True}
    assert found["difference"] == {"test_rmse_pct": pytest.approx(-0.005)}
    assert found["judged"] == {"challenger": v2, "champion": v1, "r2": 0.01, "p_value": 0.02}
    assert found == {
        **compare(registry, v2, v1),
        "versions": found["versions"],
        "difference": found["difference"],
    }
    assert [v["version"] for v in found["versions"]] == [v1, v2]
    other = compare(registry, v2, v3)
    assert (other["same"]["data_hash"], other["difference"], other["judged"]) == (False, None, None)


def test_a_summary_counts_everything(registry: Registry, tmp_path: Path) -> None:
    empty = summary(registry)
    assert (empty["versions"], empty["aliases"], empty["moves"], empty["last_move"]) == (0, {}, 0, None)
    v1, v2 = add(registry, tmp_path, BOOTSTRAP), add(registry, tmp_path, CHALLENGER)
    add(registry, tmp_path, REFUSED)
    promote(registry, v1)
    promote(registry, v2, "challenger")
    found = summary(registry)
    assert found["stages"] == {"None": 1, "Staging": 1, "Production": 1}
    assert found["verdicts"] == {"refused": 1, "challenger": 1, "bootstrap": 1}
    assert (found["families"], found["versions"], found["moves"]) == ({"ar": 3}, 3, 2)
    assert list(found["aliases"]) == ["champion", "challenger"]
    assert found["aliases"]["champion"] == row(registry.resolve(v1))
    assert found["last_move"]["version"] == v2


def note(alias: str, version: int) -> dict[str, Any]:
    return {"alias": alias, "version": version}


@pytest.mark.parametrize(
    ("moves", "line"),
    [
        ([], []),
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3, 2], [1, 2]),
        ([1, 2, 3, 2, 1], [1]),
        ([1, 2, 1, 3], [1, 3]),
        ([1, 2, 3, 1, 2], [1, 2]),
    ],
)
def test_the_line_of_champions_forgets_what_was_rolled_back_over(moves: list[int], line: list[int]) -> None:
    others = [note("challenger", 9)]
    assert champions([*others, *(note("champion", v) for v in moves), *others]) == line


def test_a_new_champion_gives_up_its_other_aliases_and_archives_the_old_one() -> None:
    held = {"champion": 1, "challenger": 2, "shadow": 2, "archived": 3}
    whole = {"champion": 2, "challenger": None, "shadow": None, "archived": 1}
    assert changes_of(held, "champion", 2) == whole
    assert changes_of(held, "champion", 3) == {"champion": 3, "archived": 1}
    assert changes_of(held, "shadow", 1) == {"shadow": 1}
    assert changes_of({}, "champion", 1) == {"champion": 1}
    assert changes_of({"champion": 1, "archived": 3}, "champion", 1) == {"champion": 1}
