"""Generated pages are current."""

from __future__ import annotations

from pathlib import Path

from marketray.settings_page import settings_page

DOCS = Path(__file__).parents[1] / "docs"


def test_the_settings_page_is_what_the_classes_say() -> None:
    page = (DOCS / "settings.md").read_text()
    assert page == settings_page(), "run: python -m marketray.settings_page > docs/settings.md"
    assert "| `tuning.stage1_trials` | whole number, ≥ 1 | `20` | |" in page.replace("|  |", "| |")
    assert "or a calendar in whose sessions to decide, such as XNYS |" in page
