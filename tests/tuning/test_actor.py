"""What the process of the trials imports."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from marketray.tuning.actor import import_trees


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The imports that `import_trees` asks for; scikit-learn must be out of their reach."""
    found: list[str] = []

    def import_module(name: str) -> ModuleType:
        found.append(name)
        with pytest.raises(ModuleNotFoundError):
            importlib.__import__("sklearn")
        if name == "lightgbm":
            msg = "no such library"
            raise ImportError(msg)
        return sys

    for name in [n for n in sys.modules if n.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib, "import_module", import_module)
    return found


def test_only_the_libraries_of_the_families_are_imported_and_without_scikit_learn(
    imported: list[str],
) -> None:
    import_trees(["ar", "xgboost"])
    assert imported == ["xgboost"]
    assert "sklearn" not in sys.modules


def test_scikit_learn_can_be_imported_after_a_library_that_fails(imported: list[str]) -> None:
    with pytest.raises(ImportError, match="no such library"):
        import_trees(["lightgbm"])
    assert "sklearn" not in sys.modules


def test_scikit_learn_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType("sklearn")
    monkeypatch.setitem(sys.modules, "sklearn", there)
    import_trees(["xgboost"])
    assert sys.modules["sklearn"] is there
