"""The texts finbert-mini learns from: headlines with a teacher's probabilities, and mutations of them.

The teacher is FinBERT, read from a file of its outputs. A linear model of n-grams and lexicon scores
learns from it first and labels as many mutated headlines as the small BERT needs: with 7,000 labelled
headlines alone a BERT from scratch learns them by heart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.ingest.sources.simulator_text import write_articles
from marketray.sentiment.lexicon import lexicon_scores

__all__ = [
    "HeadlineMutator",
    "LinearTeacher",
    "Texts",
    "day",
    "lexicon_words",
    "read_headlines",
    "simulated_texts",
]

Float32Array = npt.NDArray[np.float32]

_PROBABILITIES = ["positive_prob", "negative_prob", "neutral_prob"]
_SIMULATED_CERTAINTY = 0.90  # the class's probability in targets for simulated texts; the rest is shared
_LEXICON_SHARE = 0.4  # of replaced words


@dataclass(frozen=True)
class Texts:
    """Texts and their class probabilities positive, negative, neutral, shape (n, 3)."""

    texts: list[str]
    probabilities: Float32Array

    def __add__(self, other: Texts) -> Texts:
        return Texts(
            self.texts + other.texts,
            np.concatenate([self.probabilities, other.probabilities]).astype(np.float32),
        )


def read_headlines(
    path: Path, train_until: datetime, test_from: datetime
) -> tuple[Texts, list[str], Texts, Texts]:
    """Labelled headlines for training, all headlines of that time, and those for validation and test.

    Training takes time < `train_until`, validation [`train_until`, `test_from`), the test the rest, UTC.
    Labelled are the hours with one article, whose average is that article's own output. A headline that
    stands in an earlier part, whatever its case and punctuation, is left out of the later ones.
    """
    plain = pl.col("latest_headline").str.to_lowercase().str.replace_all(r"[\W_]+", " ").str.strip_chars()
    rows = pl.read_parquet(path).sort("time").with_columns(plain=plain)
    early = rows.filter(pl.col("time") < train_until)
    middle = rows.filter(pl.col("time").is_between(train_until, test_from, closed="left"))
    late = rows.filter(pl.col("time") >= test_from)
    middle = middle.join(early, on="plain", how="anti")
    late = late.join(early, on="plain", how="anti").join(middle, on="plain", how="anti")
    train, validation, test = (_labelled(part) for part in (early, middle, late))
    return train, early["latest_headline"].to_list(), validation, test


def _labelled(rows: pl.DataFrame) -> Texts:
    one = rows.filter(pl.col("article_count") == 1).unique("plain", keep="first", maintain_order=True)
    return Texts(one["latest_headline"].to_list(), one.select(_PROBABILITIES).to_numpy().astype(np.float32))


def simulated_texts(rng: np.random.Generator, n: int) -> Texts:
    """`n` titles and `n` bodies of the simulator; probability 0.90 for the tone they were written in."""
    sentiment = rng.integers(-1, 2, n).astype(np.int8)
    titles, bodies = write_articles(rng, sentiment)
    rest = (1 - _SIMULATED_CERTAINTY) / 2
    one_hot = np.concatenate([sentiment, sentiment])[:, None] == np.array([1, -1, 0])
    return Texts(titles + bodies, np.where(one_hot, _SIMULATED_CERTAINTY, rest).astype(np.float32))


def lexicon_words() -> list[str]:
    """The single lower-case words of VADER's list."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return [word for word in SentimentIntensityAnalyzer().lexicon if re.fullmatch("[a-z]+", word)]


class HeadlineMutator:
    """Makes headlines that nobody wrote: two halves joined, up to three words replaced.

    Replacements come from the headlines themselves (entities, verbs, numbers) and, four in ten, from the
    lexicon, so that words of tone which the headlines lack are met too.
    """

    def __init__(self, headlines: list[str], lexicon: list[str]) -> None:
        self._split = [words for words in (headline.split() for headline in headlines) if words]
        self._words = [word for words in self._split for word in words]
        self._lexicon = lexicon

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        """`n` mutated headlines."""
        pairs = rng.integers(len(self._split), size=(n, 2))
        return [self._mutate(rng, self._split[i], self._split[j]) for i, j in pairs]

    def _mutate(self, rng: np.random.Generator, one: list[str], other: list[str]) -> str:
        words = list(one)
        if rng.random() < 0.5:
            words = words[: rng.integers(1, len(words) + 1)] + other[rng.integers(len(other)) :]
        for _ in range(rng.integers(4)):
            pool = self._lexicon if rng.random() < _LEXICON_SHARE else self._words
            words[rng.integers(len(words))] = pool[rng.integers(len(pool))]
        return " ".join(words)


class LinearTeacher:
    """Ridge regression of the probabilities on TF-IDF n-grams and VADER's score."""

    def __init__(self, headlines: list[str], labelled: Texts, alpha: float = 3.0) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        self._grams = [
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        ]
        for grams in self._grams:
            grams.fit(headlines)
        self._ridge = Ridge(alpha=alpha).fit(self._columns(labelled.texts), labelled.probabilities)

    def label(self, texts: list[str]) -> Texts:
        """`texts` with probabilities, at least 0.01 each before they are scaled to the sum 1."""
        raw = np.clip(self._ridge.predict(self._columns(texts)), 0.01, None)
        return Texts(texts, (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))

    def _columns(self, texts: list[str]) -> Any:
        from scipy import sparse

        score = lexicon_scores(texts)[:, None]
        tone = np.hstack([score, np.maximum(score, 0), np.maximum(-score, 0)])
        return sparse.hstack([*(grams.transform(texts) for grams in self._grams), tone]).tocsr()


def day(text: str) -> datetime:
    """Midnight UTC of a date such as 2024-07-01."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
