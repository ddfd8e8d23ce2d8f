"""Train finbert-mini: ``python -m marketray.sentiment.distil --data FILE --out FOLDER``.

A BERT of 2 layers and its own vocabulary, trained on FinBERT's probabilities (Hinton et al. 2015,
"Distilling the Knowledge in a Neural Network"; Kullback-Leibler loss at temperature 1). First on mutated
headlines that a linear model has labelled, then on the teacher's own outputs. Same seed, machine and
versions: same weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from marketray.sentiment.checkpoint import LABELS
from marketray.sentiment.distil_corpus import (
    HeadlineMutator,
    LinearTeacher,
    Texts,
    day,
    lexicon_words,
    read_headlines,
    simulated_texts,
)
from marketray.sentiment.lexicon import lexicon_classes, lexicon_scores

__all__ = ["Recipe", "agreement", "probabilities", "tones_and_classes", "train"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4


@dataclass(frozen=True)
class Recipe:
    """What decides the weights; chosen on headlines of 2023-07 to 2024-10 with training before them."""

    seed: int = 20_240_701
    train_until: str = "2024-07-01"
    test_from: str = "2024-11-05"
    vocabulary: int = 8_000
    alphabet: int = 300
    hidden: int = 128
    layers: int = 2
    positions: int = 512
    mutations: int = 30_000
    rounds: int = 4
    mutation_rate: float = 5e-4
    fine_epochs: int = 1
    fine_rate: float = 2e-4
    batch: int = 64
    masked: float = 0.05
    simulated: int = 1_000


def train(data: Path, out: Path, recipe: Recipe) -> dict[str, object]:
    """Train, measure and save the checkpoint; returns what `metrics.json` holds.

    Parameters
    ----------
    data:
        Parquet with time, article_count, latest_headline and the three probabilities.
    out:
        Folder for config.json, model.safetensors (float16), the tokenizer and metrics.json.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    labelled, headlines, validation, test = read_headlines(
        data, day(recipe.train_until), day(recipe.test_from)
    )
    simulated = simulated_texts(rng, recipe.simulated)
    lexicon = lexicon_words()
    tokenizer = _fit_tokenizer([*headlines, *simulated.texts, *lexicon, *lexicon], recipe)
    model = _new_model(tokenizer, recipe)
    teacher = LinearTeacher(headlines, labelled)
    mutator = HeadlineMutator(headlines, lexicon)
    for _ in range(recipe.rounds):
        mutated = teacher.label(mutator.draw(rng, recipe.mutations))
        _fit(model, tokenizer, mutated + simulated, recipe.mutation_rate, recipe, rng)
    for _ in range(recipe.fine_epochs):
        _fit(model, tokenizer, labelled + simulated, recipe.fine_rate, recipe, rng)
    seconds = round(time.perf_counter() - started)
    model.save_pretrained(out, state_dict={name: w.half() for name, w in model.state_dict().items()})
    tokenizer.save_pretrained(out)
    saved = BertForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    measured: dict[str, object] = {
        "recipe": asdict(recipe),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "rows": {"train": len(labelled.texts), "headlines": len(headlines)},
        "training_seconds": seconds,
    }
    for name, part in (("validation", validation), ("test", test)):
        measured[name] = _compare(saved, tokenizer, teacher, part)
    (out / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return measured


def probabilities(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, texts: list[str]
) -> npt.NDArray[np.float32]:
    """Class probabilities of `texts`, in the model's own order, shape (n, 3)."""
    model.train(mode=False)
    out = np.empty((len(texts), len(LABELS)), np.float32)
    with torch.no_grad():
        for rows, ids in _batches(_encode(tokenizer, texts), np.arange(len(texts)), 128):
            logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
            out[rows] = functional.softmax(logits, dim=-1).numpy()
    return out


def agreement(
    tones: npt.NDArray[np.float64], classes: npt.NDArray[np.int8], teacher: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Share of rows in the teacher's class, and correlation with its p₊ − p₋.

    `tones` are scores in [-1, 1] and `classes` 1, 0 or -1, shape (n,) each; `teacher` holds probabilities
    in the order of `LABELS`, shape (n, 3).
    """
    tone, wanted = tones_and_classes(teacher)
    return {
        "class_agreement": round(float((classes == wanted).mean()), 4),
        "correlation": round(float(np.corrcoef(tones, tone)[0, 1]), 4),
    }


def tones_and_classes(p: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """p₊ − p₋ and the likeliest class as 1, -1 or 0, from probabilities in the order of `LABELS`."""
    likeliest = np.array([1, -1, 0], dtype=np.int8)[p.argmax(axis=1)]
    return p[:, 0].astype(np.float64) - p[:, 1], likeliest


def _compare(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, teacher: LinearTeacher, part: Texts
) -> dict[str, object]:
    scores = lexicon_scores(part.texts)
    says = {
        "finbert_mini": tones_and_classes(probabilities(model, tokenizer, part.texts)),
        "linear": tones_and_classes(teacher.label(part.texts).probabilities),
        "lexicon": (scores, lexicon_classes(scores)),
    }
    counts = np.bincount(part.probabilities.argmax(axis=1))
    return {
        "rows": len(part.texts),
        "majority": round(float(counts.max() / len(part.texts)), 4),
        **{name: agreement(*answer, part.probabilities) for name, answer in says.items()},
    }


def _fit_tokenizer(texts: list[str], recipe: Recipe) -> BertTokenizer:
    """WordPiece of the most frequent characters and pieces, the same on every run.

    The trainer numbers pieces in the order of a hash map and breaks ties by number: the alphabet is
    therefore chosen here, and its pieces are numbered by naming them as special tokens.
    """
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(lowercase=True, strip_accents=True)
    counts = Counter(chain.from_iterable(map(pieces.normalizer.normalize_str, texts)))
    common = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))[: recipe.alphabet]
    alphabet = sorted(common)
    pieces.train_from_iterator(
        texts,
        vocab_size=recipe.vocabulary,
        min_frequency=2,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        special_tokens=[*_SPECIAL, *(f"##{character}" for character in alphabet)],
        show_progress=False,
    )
    found = sorted(set(pieces.get_vocab()) - set(_SPECIAL))
    return BertTokenizer(
        vocab={piece: i for i, piece in enumerate([*_SPECIAL, *found])},
        do_lower_case=True,
        strip_accents=True,
        model_max_length=recipe.positions,
    )


def _new_model(tokenizer: BertTokenizer, recipe: Recipe) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // 32,
        intermediate_size=4 * recipe.hidden,
        max_position_embeddings=recipe.positions,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = BertForSequenceClassification(config)
    # texts end before the 100th token here: later positions are never trained and must say nothing
    torch.nn.init.zeros_(model.bert.embeddings.position_embeddings.weight)
    return model


def _fit(
    model: BertForSequenceClassification,
    tokenizer: BertTokenizer,
    corpus: Texts,
    rate: float,
    recipe: Recipe,
    rng: np.random.Generator,
) -> None:
    """One pass over `corpus` in random order, the rate rising over its first tenth, then falling to 0."""
    encoded = _encode(tokenizer, corpus.texts)
    targets = torch.from_numpy(corpus.probabilities)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = list(_batches(encoded, rng.permutation(len(encoded)), recipe.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(steps) + 1, pct_start=0.1)
    model.train()
    for i in rng.permutation(len(steps)):
        rows, ids = steps[i]
        hidden = (torch.rand(ids.shape) < recipe.masked) & (ids >= len(_SPECIAL))
        seen = torch.where(hidden, tokenizer.mask_token_id, ids)
        logits = model(input_ids=seen, attention_mask=(ids != 0).long()).logits
        loss = functional.kl_div(functional.log_softmax(logits, dim=-1), targets[rows], reduction="batchmean")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _encode(tokenizer: BertTokenizer, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, truncation=True)["input_ids"])


def _batches(
    encoded: list[list[int]], order: npt.NDArray[np.intp], size: int
) -> Iterator[tuple[npt.NDArray[np.intp], torch.Tensor]]:
    """Rows and padded token ids (0 pads); texts of similar length together within 20 batches."""
    for start in range(0, len(order), 20 * size):
        group = np.array(sorted(order[start : start + 20 * size], key=lambda i: len(encoded[i])))
        for first in range(0, len(group), size):
            rows = group[first : first + size]
            ids = torch.zeros(len(rows), len(encoded[rows[-1]]), dtype=torch.long)
            for row, i in enumerate(rows):
                ids[row, : len(encoded[i])] = torch.tensor(encoded[i])
            yield rows, ids


def main() -> None:
    """Read the command line, train, and write what was measured to standard output."""
    parser = argparse.ArgumentParser(prog="python -m marketray.sentiment.distil", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of headlines and FinBERT's outputs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "finbert_mini")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of the result's last bits")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(train(options.data, options.out, Recipe())))  # noqa: T201


if __name__ == "__main__":
    main()
