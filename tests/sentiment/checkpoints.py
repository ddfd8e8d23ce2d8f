"""Tiny sequence classifiers with a vocabulary of their own, saved as `save_pretrained` saves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

WORDS = ["shares", "profit", "loss", "rises", "falls", "growth", "decline", "strong", "weak", "company"]
WORDS += ["bank", "oil", "market", "quarter", "forecast", "raises", "cuts", "outlook", "record", "demand"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FINBERT_LABELS = {0: "positive", 1: "negative", 2: "neutral"}


def save_checkpoint(folder: Path, labels: dict[int, str] | None = None, seed: int = 0, **config: int) -> Path:
    """A BERT of two layers with random weights; returns its folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(vocabulary), id2label=labels or FINBERT_LABELS, **(sizes | config))
    )
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pairs = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pairs)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast", "pad_token": "[PAD]", "do_lower_case": True})
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def make_texts(n: int, seed: int = 0, longest: int = 30) -> pl.DataFrame:
    """`n` different texts of 3 to `longest` words with their hashes."""
    from marketray.sentiment.texts import text_hashes

    r = np.random.default_rng(seed)
    texts = [" ".join(r.choice(WORDS, int(r.integers(3, longest)))) + f" {i}" for i in range(n)]
    frame = pl.DataFrame({"text": texts})
    return frame.with_columns(text_hash=text_hashes(frame["text"]))


def plain_scores(folder: Path, texts: list[str], order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """The plain way in float32: one text at a time, without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    length = model.config.max_position_embeddings
    rows = []
    with torch.inference_mode():
        for text in texts:
            encoded = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
            rows.append(torch.softmax(model(**encoded).logits[0], -1)[list(order)].numpy())
    return np.stack(rows)
