"""What a registered version is stamped with."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from marketray.evaluation import registration
from marketray.evaluation.registration import code_revision

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
