"""The training of finbert-mini: its split, its mutations, its targets, and that it repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from marketray.sentiment.distil import Recipe, agreement, tones_and_classes, train
from marketray.sentiment.distil_corpus import (
    HeadlineMutator,
    LinearTeacher,
    day,
    lexicon_words,
    read_headlines,
    simulated_texts,
)

SMALL = Recipe(
    train_until="2024-01-11", test_from="2024-01-16", vocabulary=300, hidden=32, layers=1, positions=64,
    mutations=128, rounds=1, simulated=20,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def headlines(tmp_path: Path) -> Path:
    """480 hours from 2024-01-01; every fourth averages two articles, and each 100th repeats the first."""
    texts = simulated_texts(np.random.default_rng(5), 240)
    titles = [f"{text} number {i}" for i, text in enumerate(texts.texts)]
    titles[::100] = [titles[0], *(title.upper() + "!" for title in [titles[0]] * 4)]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    columns = dict(
        zip(("positive_prob", "negative_prob", "neutral_prob"), texts.probabilities.T, strict=True)
    )
    table = pl.DataFrame(
        {
            "time": [start + timedelta(hours=i) for i in range(480)],
            "article_count": [2 if i % 4 == 3 else 1 for i in range(480)],
            "latest_headline": titles,
        }
        | {name: values.astype(np.float64) for name, values in columns.items()}
    )
    table.write_parquet(tmp_path / "headlines.parquet")
    return tmp_path / "headlines.parquet"


def test_parts_follow_in_time_and_share_no_headline(headlines: Path) -> None:
    train_rows, early, validation, test = read_headlines(headlines, day("2024-01-11"), day("2024-01-16"))
    assert len(early) == 240
    assert len(train_rows.texts) == 180 - 2  # one article an hour, the first headline once instead of thrice
    assert len(validation.texts) == 90 - 1
    assert len(test.texts) == 90 - 1
    numbers = [int(text.rsplit(" ", 1)[1]) for text in validation.texts + test.texts]
    assert numbers == [i for i in range(240, 480) if i % 4 != 3 and i not in {300, 400}]


def test_simulated_targets_name_the_tone() -> None:
    texts = simulated_texts(np.random.default_rng(0), 500)
    assert len(texts.texts) == 1_000
    np.testing.assert_allclose(texts.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    strong = [
        p.argmax() for t, p in zip(texts.texts, texts.probabilities, strict=True) if "strong demand" in t
    ]
    assert strong
    assert set(strong) == {0}


def test_mutations_repeat_by_seed_and_use_known_words_only() -> None:
    mutator = HeadlineMutator(["banks gain on rates", "oil falls", " "], ["good", "bad"])
    drawn = mutator.draw(np.random.default_rng(3), 200)
    assert drawn == mutator.draw(np.random.default_rng(3), 200)
    known = {"banks", "gain", "on", "rates", "oil", "falls", "good", "bad"}
    assert {word for text in drawn for word in text.split()} == known
    assert max(len(text.split()) for text in drawn) <= 8


def test_the_linear_teacher_learns_the_tone_of_its_headlines(headlines: Path) -> None:
    train_rows, early, validation, _ = read_headlines(headlines, day("2024-01-11"), day("2024-01-16"))
    says = LinearTeacher(early, train_rows).label(validation.texts)
    np.testing.assert_allclose(says.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert says.probabilities.min() > 0
    assert (
        agreement(*tones_and_classes(says.probabilities), validation.probabilities)["class_agreement"] > 0.9
    )


def test_agreement_counts_classes_and_correlates_tones() -> None:
    teacher = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]], np.float32)
    tones = np.array([0.5, -0.2, 0.1, 0.0])
    measured = agreement(tones, np.array([1, -1, 0, 0], np.int8), teacher)
    expected = np.cov(tones, [0.7, -0.7, 0.0, 0.4])
    assert measured["class_agreement"] == 0.75
    correlation = expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
    assert measured["correlation"] == pytest.approx(correlation, abs=1e-4)


def test_lexicon_words_are_single_lower_case_words() -> None:
    words = lexicon_words()
    assert {"gain", "loss"} <= set(words)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_training_repeats_itself_and_records_what_it_did(headlines: Path, tmp_path: Path) -> None:
    first = train(headlines, tmp_path / "a", SMALL)
    train(headlines, tmp_path / "b", SMALL)
    train(headlines, tmp_path / "c", replace(SMALL, seed=1))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (
        tmp_path / "b" / "tokenizer.json"
    ).read_bytes()
    assert first["rows"] == {"train": 178, "headlines": 240}
    assert set(first["test"]) == {"rows", "majority", "finbert_mini", "linear", "lexicon"}  # type: ignore[call-overload]
