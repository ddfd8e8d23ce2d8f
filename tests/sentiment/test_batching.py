"""Batches and blocks: every text once, budgets kept, cuts that survive a restart."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

from marketray.errors import DataError
from marketray.sentiment.batching import Tokens, plan_batches, round_up
from marketray.sentiment.texts import cut_blocks, require_texts, text_hashes, unscorable, with_text
from tests.sentiment.checkpoints import make_texts

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 300), st.sampled_from([1, 8, 16]))
def test_each_text_is_in_one_batch_within_the_budget(lengths: list[int], budget: int, multiple: int) -> None:
    n = np.array(lengths)
    batches = list(plan_batches(n, budget, multiple))
    assert sorted(np.concatenate(batches)) == list(range(len(n)))
    for rows in batches:
        width = round_up(int(n[rows].max()), multiple)
        assert len(rows) == 1 or len(rows) * width <= budget


@given(LENGTHS)
def test_batches_hold_texts_of_similar_length(lengths: list[int]) -> None:
    n = np.array(lengths)
    order = np.concatenate(list(plan_batches(n, 128)))
    assert list(n[order]) == sorted(lengths, reverse=True)


@given(LENGTHS, st.sampled_from([1, 8]))
def test_padding_is_where_no_token_is(lengths: list[int], multiple: int) -> None:
    lists = [[10 * i + j + 1 for j in range(n)] for i, n in enumerate(lengths)]
    tokens = Tokens.from_arrow(pa.array([[0], *lists], pa.list_(pa.int32()))[1:])  # a view with an offset
    rows = np.arange(len(lengths))[::-1]
    ids, real = tokens.padded(rows, 7, multiple)
    width = round_up(max(lengths), multiple)
    assert ids.tolist() == [lists[r] + [7] * (width - lengths[r]) for r in rows]
    assert real.tolist() == [[True] * lengths[r] + [False] * (width - lengths[r]) for r in rows]


def test_blocks_hold_every_text_once_and_grow_in_length() -> None:
    texts = make_texts(300)
    blocks = list(cut_blocks(texts, 64, 200))
    together = pl.concat(blocks)
    assert sorted(together["text_hash"]) == sorted(texts["text_hash"])
    lengths = together["text"].str.len_chars()
    assert lengths.to_list() == sorted(lengths)
    assert len(blocks) > 5


@given(st.sets(st.integers(0, 8)))
def test_blocks_that_remain_are_cut_as_before(finished: set[int]) -> None:
    texts = make_texts(150)
    blocks = list(cut_blocks(texts, 64, 200))
    done = [b["text_hash"] for i, b in enumerate(blocks) if i in finished]
    left = texts.filter(~pl.col("text_hash").is_in(pl.concat(done).to_list() if done else []))
    again = list(cut_blocks(left.sample(fraction=1, shuffle=True, seed=1), 64, 200))
    wanted = [b for i, b in enumerate(blocks) if i not in finished]
    assert [b["text_hash"].to_list() for b in again] == [b["text_hash"].to_list() for b in wanted]


def test_a_headline_or_headline_and_body() -> None:
    articles = pl.DataFrame({"title": ["Oil  falls ", None], "body": ["Much\nmore.", "Alone"]})
    assert with_text(articles, "headline")["text"].to_list() == ["Oil falls", ""]
    both = with_text(articles, "headline_and_body")
    assert both["text"].to_list() == ["Oil falls Much more.", "Alone"]
    assert both["text_hash"].to_list() == text_hashes(pl.Series(["Oil falls Much more.", "Alone"])).to_list()


def test_hashes_are_sha256_of_the_text() -> None:  # `printf abc | sha256sum`
    assert text_hashes(pl.Series(["abc"])).item() == "ba7816bf8f01cfea414140de5dae2223"


def test_short_texts_are_not_scored() -> None:
    assert unscorable(" ") == "the text is empty"
    assert unscorable("123456789 ") == "the text is shorter than 10 characters"
    assert unscorable("1234567890") is None


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ({"text": ["a"]}, r"got the columns \['text'\]; required: text_hash, text"),
        ({"text_hash": ["a", "a"], "text": ["x", "y"]}, "got 0 nulls and 1 hashes more than once"),
        ({"text_hash": ["a", "b"], "text": ["x", None]}, "got 1 nulls and 0 hashes more than once"),
    ],
)
def test_wrong_tables_are_refused(frame: dict[str, list[str]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        require_texts(pl.DataFrame(frame))
