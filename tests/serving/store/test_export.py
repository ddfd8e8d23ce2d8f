"""Exports hold what the history holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from marketray.serving.store import Store
from marketray.serving.store.export import EXPORT_SCHEMA, export_jsonl, export_parquet, json_lines
from marketray.serving.store.predictions import Settlement, Wanted
from marketray.serving.store.tables import PREDICTIONS
from tests.serving.store.rows import START, row


@pytest.fixture
def filled(store: Store) -> Store:
    store.predictions.record([row(n, slot="green" if n % 3 else "blue", latency_ms=n / 7) for n in range(10)])
    store.predictions.record([row("x", status=503, decision_at=None, problem="no „model“\n", at=START)])
    found, _ = store.predictions.history(Wanted(slot="green"), limit=2)
    store.predictions.settle([Settlement(found[0].id, 0.1), Settlement(found[1].id, None, "no bar")], START)
    return store


def test_jsonl_and_parquet_equal_the_history(filled: Store, tmp_path: Path) -> None:
    for wanted in (Wanted(), Wanted(slot="green", version=1)):
        expected = [asdict(p) for p in filled.predictions.history(wanted, limit=100)[0]][::-1]
        lines, table = tmp_path / "p.jsonl", tmp_path / "p.parquet"
        assert export_jsonl(filled.predictions, lines, wanted) == len(expected)
        assert export_parquet(filled.predictions, table, wanted) == len(expected)
        times = {c for c in expected[0] if c.endswith("_at") or c == "at"}
        read = [json.loads(line) for line in lines.read_text().splitlines()]
        parsed = [
            {k: datetime.fromisoformat(v) if k in times and v else v for k, v in line.items()}
            for line in read
        ]
        assert parsed == expected
        assert pl.read_parquet(table).to_dicts() == expected
    assert pq.read_schema(table).equals(EXPORT_SCHEMA)
    assert "".join(json_lines(filled.predictions, wanted)) == lines.read_text()


def test_an_export_of_nothing_is_a_file_with_the_columns(store: Store, tmp_path: Path) -> None:
    assert export_parquet(store.predictions, tmp_path / "p.parquet") == 0
    assert pl.read_parquet(tmp_path / "p.parquet").columns == [c.name for c in PREDICTIONS.columns]
    assert export_jsonl(store.predictions, tmp_path / "p.jsonl") == 0
    assert (tmp_path / "p.jsonl").read_text() == ""


def test_an_export_that_fails_leaves_the_file_before_it(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("before")

    def broken(*_: object) -> Iterator[str]:
        yield "half a line"
        raise ZeroDivisionError

    monkeypatch.setattr("marketray.serving.store.export.json_lines", broken)
    with pytest.raises(ZeroDivisionError):
        export_jsonl(filled.predictions, path)
    assert [(p.name, p.read_text()) for p in tmp_path.glob("*p.jsonl*")] == [("p.jsonl", "before")]
