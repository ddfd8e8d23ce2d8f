"""The checkpoint in the package: what it is, how it reads the simulator, how far it follows FinBERT."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from marketray.ingest.sources.simulator_text import write_articles
from marketray.sentiment.checkpoint import LABELS, PACKAGED, find_checkpoint
from marketray.sentiment.distil import agreement, probabilities, tones_and_classes
from marketray.sentiment.distil_corpus import Texts, day, read_headlines
from marketray.sentiment.lexicon import lexicon_classes, lexicon_scores

FOLDER = PACKAGED["finbert-mini"]
DATA = Path(os.environ.get("MARKETRAY_DATA", Path(__file__).parents[3] / "shared" / "data"))
HEADLINES = DATA / "news_gdelt_hourly_2020_2025.parquet"


def refuse(*_: object) -> NoReturn:
    pytest.fail("a network connection was tried")


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        model = AutoModelForSequenceClassification.from_pretrained(FOLDER)
        return model, AutoTokenizer.from_pretrained(FOLDER)


def test_loads_without_a_network_as_float32(mini: tuple[Any, Any]) -> None:
    model, tokenizer = mini
    assert isinstance(model, BertForSequenceClassification)
    assert model.dtype == torch.float32
    assert tokenizer.is_fast
    assert len(tokenizer) == model.config.vocab_size <= 8_000
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512


def test_is_found_by_name_with_the_labels_in_order() -> None:
    assert find_checkpoint("finbert-mini", None, Path("/")).order == (0, 1, 2)


def test_fits_into_six_megabytes_and_says_where_it_comes_from() -> None:
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert sum(files.values()) <= 6_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.json", "README.md"} <= set(files)
    note = (FOLDER / "README.md").read_text(encoding="utf-8")
    for source in ("kht321/fx-ml-pipeline", "ProsusAI/finbert", "VADER", "MIT"):
        assert source in note


def test_reads_the_tone_of_the_simulators_articles(mini: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(101)
    tones = rng.integers(-1, 2, 200).astype(np.int8)
    titles, bodies = write_articles(rng, tones)
    for texts in (titles, bodies, [f"{t} {b}" for t, b in zip(titles, bodies, strict=True)]):
        _, classes = tones_and_classes(probabilities(*mini, texts))
        assert (classes == tones).mean() >= 0.99


def test_padding_changes_no_probability(mini: tuple[Any, Any]) -> None:
    texts = [
        "Banks beat profit estimates",
        "Airlines slump on weak demand as fuel costs rise for a third month",
    ]
    together = probabilities(*mini, texts)
    alone = np.concatenate([probabilities(*mini, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-6)


@pytest.fixture(scope="module")
def held_out() -> Texts:
    if not HEADLINES.exists():
        pytest.skip(f"{HEADLINES} is not here; set MARKETRAY_DATA to the folder that has it")
    recipe = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))["recipe"]
    return read_headlines(HEADLINES, day(recipe["train_until"]), day(recipe["test_from"]))[3]


def test_follows_the_teacher_on_headlines_after_its_training(mini: tuple[Any, Any], held_out: Texts) -> None:
    teacher = held_out.probabilities
    ours = agreement(*tones_and_classes(probabilities(*mini, held_out.texts)), teacher)
    scores = lexicon_scores(held_out.texts)
    lexicon = agreement(scores, lexicon_classes(scores), teacher)
    majority = np.bincount(teacher.argmax(axis=1), minlength=len(LABELS)).max() / len(teacher)
    assert ours["class_agreement"] >= majority + 0.05
    assert ours["class_agreement"] >= lexicon["class_agreement"] + 0.05
    assert ours["correlation"] >= lexicon["correlation"] + 0.10
    recorded = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert recorded["finbert_mini"] == pytest.approx(ours, abs=2e-3)
    assert recorded["lexicon"] == pytest.approx(lexicon, abs=2e-3)
    assert recorded["rows"] == len(teacher)
