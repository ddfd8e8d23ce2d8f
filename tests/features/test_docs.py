"""docs/features.md says what the catalog says."""

from __future__ import annotations

from pathlib import Path

from marketray.features.docs import main, render
from marketray.features.groups import built_in_features, built_in_fitted
from marketray.features.seed_compatible import seed_features

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run `python -m marketray.features.docs`"


def test_the_page_names_every_feature(tmp_path: Path) -> None:
    main([str(tmp_path / "new" / "page.md")])
    rows = [
        line for line in (tmp_path / "new" / "page.md").read_text().splitlines() if line.startswith("| `")
    ]
    expected = [f.name for f in (*built_in_features(1), *built_in_fitted(), *seed_features(1))]
    assert [row.split("`")[1] for row in rows] == expected


def test_the_null_policy_stands_in_a_column_of_its_own() -> None:
    rows = {line.split("`")[1]: line.split(" | ") for line in render().splitlines() if line.startswith("| `")}
    assert rows["order_flow_mean_5"][1:3] == ["mean of order_flow_imbalance over 5 bars", ""]
    assert rows["range_position_60"][1:3] == [
        "(C - min L) / (max H - min L) over 60 bars",
        "0.5 where the range is 0",
    ]
    assert rows["high_volume"][1:3] == ["volume_regime > 1.2", "0 where volume_regime is null"]
