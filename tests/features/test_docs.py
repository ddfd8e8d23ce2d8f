"""docs/features.md says what the catalog says."""

from __future__ import annotations

from pathlib import Path

from marketray.features.docs import main, render
from marketray.features.groups import built_in_features, built_in_fitted

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run `python -m marketray.features.docs`"


def test_the_page_names_every_feature(tmp_path: Path) -> None:
    main([str(tmp_path / "new" / "page.md")])
    rows = [
        line for line in (tmp_path / "new" / "page.md").read_text().splitlines() if line.startswith("| `")
    ]
    assert [row.split("`")[1] for row in rows] == [
        f.name for f in (*built_in_features(1), *built_in_fitted())
    ]
