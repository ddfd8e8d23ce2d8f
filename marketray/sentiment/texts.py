"""Which text of an article is scored, its hash, and how texts are cut into blocks of work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import polars as pl

from marketray.errors import DataError

__all__ = ["MIN_CHARACTERS", "cut_blocks", "require_texts", "text_hashes", "unscorable", "with_text"]

MIN_CHARACTERS = 10
"""A shorter text says too little to be scored."""

_CHARACTERS_PER_TOKEN = 4.0  # of English news in WordPiece; decides only how work is cut


def with_text(articles: pl.DataFrame, kind: Literal["headline", "headline_and_body"]) -> pl.DataFrame:
    """`articles` with the columns `text`, as the model reads it, and `text_hash`.

    Runs of white space become one blank. A missing title or body counts as empty.
    """
    parts = ["title"] if kind == "headline" else ["title", "body"]
    text = pl.concat_str([pl.col(part).fill_null("") for part in parts], separator=" ")
    shown = articles.with_columns(text=text.str.replace_all(r"\s+", " ").str.strip_chars())
    return shown.with_columns(text_hash=text_hashes(shown["text"]))


def text_hashes(texts: pl.Series) -> pl.Series:
    """32 hex digits a text: the start of the SHA-256 of its UTF-8 bytes."""
    digests = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
    return pl.Series("text_hash", digests, pl.String)


def require_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """The columns `text_hash` and `text`, checked: no null, no hash twice.

    Raises
    ------
    DataError
        A column is missing, a value is null, or a hash stands twice.
    """
    if not {"text_hash", "text"} <= set(texts.columns):
        msg = f"texts: got the columns {texts.columns}; required: text_hash, text"
        raise DataError(msg, hint="marketray.sentiment.texts.with_text makes them from articles")
    kept = texts.select(pl.col("text_hash", "text").cast(pl.String))
    nulls = sum(kept.null_count().row(0))
    if nulls or kept["text_hash"].n_unique() != len(kept):
        msg = f"texts: got {nulls} nulls and {len(kept) - kept['text_hash'].n_unique()} hashes more than once"
        raise DataError(msg, hint="score each text once: unique(subset='text_hash')")
    return kept


def unscorable(text: str) -> str | None:
    """Why a text is not given to the model, or None."""
    if not text.strip():
        return "the text is empty"
    if len(text.strip()) < MIN_CHARACTERS:
        return f"the text is shorter than {MIN_CHARACTERS} characters"
    return None


def cut_blocks(texts: pl.DataFrame, max_tokens: int, block_tokens: int) -> Iterator[pl.DataFrame]:
    """Runs of texts of similar length, about `block_tokens` tokens each, the longest texts last.

    The order is by length and hash, and a block is closed when the next text would not fit. Taking whole
    blocks away therefore leaves the others as they are: a run that continues makes the same blocks.
    """
    ordered = texts.with_columns(length=pl.col("text").str.len_chars()).sort("length", "text_hash")
    first, size = 0, 0.0
    for i, length in enumerate(ordered["length"]):
        cost = min(length / _CHARACTERS_PER_TOKEN + 2, max_tokens)
        if i > first and size + cost > block_tokens:
            yield ordered[first:i].drop("length")
            first, size = i, 0.0
        size += cost
    if first < len(ordered):
        yield ordered[first:].drop("length")
