"""The stage on Ray: the task does what the function does, and its errors arrive as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketray.errors import DataError, QualityError
from marketray.ingest.stage import run_ingest
from tests.ingest.made_bars import as_text, ingest, minutes, settings_for, tree


def test_the_task_writes_what_the_function_writes(ray_local: None, home: Path) -> None:
    path = home / "bars.csv"
    as_text(minutes(3_000)).write_csv(path)
    result = run_ingest(settings_for(home / "ray", path))
    assert result == ingest(home / "plain", path)
    assert tree(home / "ray" / "lake") == tree(home / "plain" / "lake")


def test_errors_of_the_task_are_ours(ray_local: None, home: Path) -> None:
    with pytest.raises(DataError, match="no.csv does not exist"):
        run_ingest(settings_for(home, home / "no.csv"))
    path = home / "bars.csv"
    as_text(minutes(10)).write_csv(path)
    with pytest.raises(QualityError, match="rows: got 10 usable rows; required: at least 11"):
        run_ingest(settings_for(home, path, quality={"min_rows": 11}))
