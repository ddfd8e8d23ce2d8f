"""The score cache: one model's scores, finished blocks only."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from marketray.lake import Lake
from marketray.sentiment.cache import REFUSED, REFUSED_SCHEMA, SCORE_SCHEMA, SCORES, ScoreCache


def tables(scored: list[str], refused: list[str]) -> tuple[pa.Table, pa.Table]:
    third = [1 / 3] * len(scored)
    values = [scored, third, third, third, [5] * len(scored)]
    columns = [pa.array(v, f.type) for v, f in zip(values, SCORE_SCHEMA, strict=True)]
    return pa.table(columns, SCORE_SCHEMA), pa.table([refused, ["empty"] * len(refused)], REFUSED_SCHEMA)


def test_what_is_stored_is_no_longer_missing(tmp_path: Path) -> None:
    cache = ScoreCache(Lake(str(tmp_path)), "finbert-1")
    texts = pl.DataFrame({"text_hash": ["d", "c", "b", "a"], "text": ["4", "3", "2", "1"]})
    assert cache.missing(texts).equals(texts)
    cache.store("x", *tables(["a", "d"], ["c"]), {"model": "finbert"})
    assert cache.missing(texts)["text_hash"].to_list() == ["b"]
    assert cache.scores()["text_hash"].to_list() == ["a", "d"]
    assert cache.refused().rows() == [("c", "empty")]


def test_a_block_stored_twice_stands_once(tmp_path: Path) -> None:
    cache = ScoreCache(Lake(str(tmp_path)), "finbert-1")
    for _ in range(2):
        cache.store("x", *tables(["a"], ["b"]), {})
    assert (len(cache.scores()), len(cache.refused())) == (1, 1)


def test_models_do_not_share_scores(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    ScoreCache(lake, "finbert-1").store("x", *tables(["a"], []), {})
    assert ScoreCache(lake, "finbert-2").scores().is_empty()


def test_an_unfinished_block_counts_for_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    cache = ScoreCache(lake, "finbert-1")
    cache.store("x", *tables(["a"], ["b"]), {})
    lake.delete(SCORES, {"model": "finbert-1", "block": "x"})  # as if killed between the two files
    assert cache.refused().is_empty()
    assert cache.missing(pl.DataFrame({"text_hash": ["a", "b"]}))["text_hash"].to_list() == ["a", "b"]


def test_rows_are_conserved_in_the_manifest(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    ScoreCache(lake, "m").store("x", *tables(["a", "d"], ["c"]), {"revision": "r"})
    kept = lake.manifest(SCORES, {"model": "m", "block": "x"})
    refused = lake.manifest(REFUSED, {"model": "m", "block": "x"})
    assert kept is not None
    assert refused is not None
    assert (kept.rows_in, kept.rows_out, kept.rows_quarantined, kept.detail) == (3, 2, 1, {"revision": "r"})
    assert refused.rows_out == 1
