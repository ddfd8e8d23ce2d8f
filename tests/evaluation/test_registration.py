"""What a registered version is stamped with, and which alias it gets."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marketray.aliases import Standing, changes_of
from marketray.evaluation import registration
from marketray.evaluation.gate import Evidence
from marketray.evaluation.registration import Placement, code_revision, place, placement

ROOT = Path(__file__).parents[2]


def test_the_revision_is_the_commit_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert code_revision() == asked.stdout.strip()


def test_an_installed_package_has_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "lib" / "marketray" / "evaluation" / "registration.py"
    monkeypatch.setattr(registration, "__file__", str(installed))
    assert code_revision() == f"marketray {version('marketray')}"


CHAMPION = Evidence("promoted", "champion", 0.04, 0.001, 1, 0.025, 900, champion_version=1)
CHALLENGER = replace(CHAMPION, verdict="challenger", alias="challenger")


class Book:
    """A registry of three versions in which aliases were moved in this order."""

    def __init__(self, *moves: tuple[str, int]) -> None:
        self.aliases: dict[str, int] = {}
        self.notes: dict[str, Any] = {}
        for move in moves:
            self.set_alias(*move)

    def standing(self) -> Standing:
        return Standing(self.aliases, self.notes, ())

    def champion(self) -> Any:
        held = self.aliases.get("champion")
        return None if held is None else SimpleNamespace(version=held)

    def set_alias(self, alias: str, version: int, record: dict[str, Any] | None = None) -> None:
        changes = changes_of(self.aliases, alias, version)
        self.aliases = {a: v for a, v in {**self.aliases, **changes}.items() if v is not None}
        self.notes[str(len(self.notes))] = {"alias": alias, "version": version, "changes": changes}


@pytest.mark.parametrize(
    ("evidence", "moves", "alias", "declined"),
    [
        (CHAMPION, [("champion", 1)], "champion", None),
        (CHAMPION, [("champion", 1), ("champion", 2)], "champion", None),  # it is there
        (
            CHAMPION,
            [("champion", 3)],
            None,
            "it was judged against champion 1, the champion is now version 3",
        ),
        (CHAMPION, [], None, "it was judged against champion 1, there is none now"),
        (
            CHAMPION,
            [("champion", 1), ("champion", 2), ("champion", 1)],
            None,
            "it had the alias champion already, which went on to version 1",
        ),
        (CHALLENGER, [("champion", 1)], "challenger", None),
        (CHALLENGER, [("champion", 1), ("challenger", 2)], "challenger", None),
        (CHALLENGER, [("champion", 1), ("challenger", 3)], "challenger", None),
        (
            CHALLENGER,
            [("challenger", 2), ("challenger", 3)],
            None,
            "it had the alias challenger already, which went on to version 3",
        ),
        (CHALLENGER, [("champion", 1), ("champion", 2)], None, "it is the champion"),
        (CHALLENGER, [("champion", 1), ("challenger", 2), ("champion", 2)], None, "it is the champion"),
        (
            CHALLENGER,
            [("champion", 1), ("challenger", 2), ("champion", 2), ("champion", 1)],
            None,
            "it had the alias challenger already, and gave it up",
        ),
        (replace(CHAMPION, alias=None), [("champion", 1)], None, None),
    ],
)
def test_version_2_gets_its_verdict_s_alias_once_and_while_the_verdict_holds(
    evidence: Evidence, moves: list[tuple[str, int]], alias: str | None, declined: str | None
) -> None:
    book: Any = Book(*moves)
    before = dict(book.aliases)
    assert placement(book, 2, evidence) == Placement(alias, declined)
    assert book.aliases == before
    assert place(book, 2, evidence) == Placement(alias, declined)
    assert book.aliases == (before if alias is None else {**before, **changes_of(before, alias, 2)})


def test_an_alias_that_another_took_at_the_same_moment_is_not_claimed() -> None:
    class Contested(Book):
        def set_alias(self, alias: str, version: int, record: dict[str, Any] | None = None) -> None:
            super().set_alias(alias, version, record)
            if version == 2:
                super().set_alias(alias, 3)

    book: Any = Contested(("champion", 1))
    assert place(book, 2, CHAMPION) == Placement(
        None, "it was judged against champion 1, the champion is now version 3"
    )
