"""Scoring of news: our way against the plain way, in one run, with a full-size BERT-base.

    python -m benchmarks.sentiment --device cpu --texts 2048

The model has random weights, which cost the same as trained ones. The plain way tokenises one by one and
runs float32 batches of 64 in the given order, padded to the batch's longest. Ours goes from an Arrow table of
texts to an Arrow table of scores through Ray; its rates count from the first batch in a loaded model to the
last score on the driver (`start_s` is what comes before). Headlines have 25 tokens in the mean, articles 250
and at most 512; there are eight times fewer of them.

The last line is JSON: device, headlines_per_s, articles_per_s, plain_headlines_per_s, plain_articles_per_s,
speedup (headlines), speedup_articles, ceiling_share (useful FLOP/s of the model alone on articles over a
square matrix product's in the same number format), agreement (share of texts with the label that float32
gives, with the packaged trained checkpoint; null where there is none), max_dp, and further figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from marketray.cluster import connect
from marketray.ingest.sources.simulator_text import write_articles
from marketray.sentiment.batching import Tokens
from marketray.sentiment.checkpoint import PACKAGED, Checkpoint, find_checkpoint
from marketray.sentiment.device import TOKEN_BUDGETS, choose_device, choose_dtype
from marketray.sentiment.finbert import FinBert
from marketray.sentiment.texts import text_hashes
from marketray.sentiment.tokenizer import export_tokenizer, tokenize
from marketray.settings import Settings, load_settings

PLAIN_BATCH = 64
MEAN_WORDS = {"headlines": (23, 9.0), "articles": (248, 3.0)}  # mean and shape of a gamma distribution


def make_texts(kind: str, count: int, seed: int = 0) -> list[str]:
    """Texts of the simulator's words, of seeded lengths."""
    import polars as pl

    r = np.random.default_rng(seed)
    titles, bodies = write_articles(r, np.array([-1, 0, 1] * 200, np.int8))
    words = np.array(pl.Series([*titles, *bodies]).str.split(" ").explode().unique().sort().to_list(), object)
    mean, shape = MEAN_WORDS[kind]
    lengths = np.maximum(r.gamma(shape, mean / shape, count).astype(int), 4)
    return [" ".join(r.choice(words, length)) for length in lengths]


def build_checkpoint(folder: Path, texts: list[str], layers: int, hidden: int) -> Path:
    """BERT with random weights and a WordPiece tokenizer made of the texts."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(texts, vocab_size=8_000, show_progress=False)
    folder.mkdir(parents=True)
    tokenizer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden // 64, 1),
        intermediate_size=4 * hidden,
        id2label={0: "positive", 1: "negative", 2: "neutral"},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def plain_rate(folder: Path, texts: list[str], device: str) -> float:
    """Texts a second of the plain way, its model loaded and warm."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval().to(device)

    def run(part: list[str]) -> None:
        encoded = [tokenizer(text, truncation=True, max_length=512) for text in part]
        batch = tokenizer.pad(encoded, padding=True, return_tensors="pt").to(device)
        with torch.no_grad():
            torch.softmax(model(**batch).logits, -1).cpu()

    run(texts[:4])
    started = time.perf_counter()
    for i in range(0, len(texts), PLAIN_BATCH):
        run(texts[i : i + PLAIN_BATCH])
    return len(texts) / (time.perf_counter() - started)


def our_rate(texts: list[str], settings: Settings) -> dict[str, float]:
    """Texts and tokens a second from Arrow to Arrow through Ray, and seconds until the first batch."""
    import polars as pl

    from marketray.sentiment.stage import score_texts

    table = pa.table({"text_hash": text_hashes(pl.Series(texts)).to_arrow(), "text": texts})
    first: list[float] = []
    called = time.time()
    done = score_texts(table, settings, on_block=lambda block: first.append(block["started_at"]))
    ended = time.time()
    assert done.scores.num_rows == len(texts)
    busy = ended - min(first)
    return {
        "texts_per_s": len(texts) / busy,
        "tokens_per_s": done.tokens / busy,
        "padding_share": 1 - done.tokens / done.padded_tokens,
        "start_s": min(first) - called,
    }


def model_alone(model: FinBert, tokenizer: str, texts: list[str]) -> tuple[float, int, float]:
    """Texts a second, useful tokens, and sum of squared lengths of the model without Ray and tokenising."""
    tokens = Tokens.from_arrow(tokenize(tokenizer, texts))
    model.score(tokens)
    started = time.perf_counter()
    model.score(tokens)
    seconds = time.perf_counter() - started
    return len(texts) / seconds, int(tokens.lengths.sum()), float((tokens.lengths**2).sum())


def matmul_flops(device: str, dtype: str) -> float:
    """FLOP/s of a square matrix product, the best of five."""
    import torch

    n = 16_384 if device == "cuda" else 2_048
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        c = a @ b
        float(c[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def agreement(dtype: str, device: str, count: int) -> dict[str, Any]:
    """Labels that the packaged trained checkpoint gives `count` texts in `dtype` against float32."""
    if not (PACKAGED["finbert-mini"] / "config.json").exists():
        return {"agreement": None, "max_dp": None}
    checkpoint = find_checkpoint("finbert-mini", None, Path("/"))
    r = np.random.default_rng(1)
    titles, bodies = write_articles(r, r.choice(np.array([-1, 0, 1], np.int8), 2 * count))
    texts = sorted({*titles, *bodies})[:count]
    tokenizer, pad = export_tokenizer(checkpoint, 128)
    tokens = Tokens.from_arrow(tokenize(tokenizer, texts))
    ours, exact = (_load(checkpoint, device, d, pad).score(tokens).probabilities for d in (dtype, "float32"))
    same = ours.argmax(1) == exact.argmax(1)
    return {
        "agreement": float(same.mean()),
        "max_dp": float(np.abs(ours - exact).max()),
        "agreement_texts": len(texts),
    }


def _load(checkpoint: Checkpoint, device: str, dtype: str, pad: int, *, compiled: bool = False) -> FinBert:
    return FinBert(
        checkpoint,
        device=device,
        dtype=dtype,
        pad=pad,
        token_budget=TOKEN_BUDGETS[device],
        compiled=compiled,
    )


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    import ray

    counts = {"headlines": options.texts, "articles": max(options.texts // 8, PLAIN_BATCH)}
    texts = {kind: make_texts(kind, count) for kind, count in counts.items()}
    everything = [text for kind in texts.values() for text in kind]
    path = build_checkpoint(folder / "bert-base", everything, options.layers, options.hidden)
    sentiment = {"model": str(path), "device": options.device, "compile": options.compile}
    settings = load_settings(None, {"home": str(folder), "sentiment": sentiment})
    connect(settings)
    device = choose_device(options.device, ray.cluster_resources().get("GPU", 0.0))
    dtype = choose_dtype("auto", device)
    shares = {"cpu": 4, "mps": 8, "cuda": 32}
    result: dict[str, Any] = {"device": device, "dtype": dtype}
    for kind, wanted in texts.items():
        ours = our_rate(wanted, settings)
        result |= {f"{kind}_per_s": ours.pop("texts_per_s")} | {f"{kind}_{k}": v for k, v in ours.items()}
        print(json.dumps({kind: ours}), flush=True)
    ray.shutdown()
    for kind, wanted in texts.items():
        few = wanted[: max(len(wanted) // shares[device], PLAIN_BATCH)]
        result[f"plain_{kind}_per_s"] = plain_rate(path, few, device)
    result["speedup"] = result["headlines_per_s"] / result["plain_headlines_per_s"]
    result["speedup_articles"] = result["articles_per_s"] / result["plain_articles_per_s"]
    checkpoint = find_checkpoint(str(path), None, folder)
    tokenizer, pad = export_tokenizer(checkpoint, 512)
    model = _load(checkpoint, device, dtype, pad, compiled=options.compile == "on")
    few = texts["articles"][: len(texts["articles"]) // (4 if device == "cpu" else 1)]
    rate, tokens, squares = model_alone(model, tokenizer, few)
    h = options.hidden
    flops = options.layers * (24 * h * h * tokens + 4 * h * squares) / len(few)  # linear layers, attention
    result |= {
        "alone_articles_per_s": rate,
        "ceiling_share": rate * flops / matmul_flops(device, dtype),
        **counts,
    }
    return result | agreement(dtype, device, options.agreement_texts)


def main() -> None:
    """Measure and print one JSON line last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="auto")
    parser.add_argument("--texts", type=int, default=2_048, help="headlines; take 500,000 or more on a GPU")
    parser.add_argument("--agreement-texts", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder))))


if __name__ == "__main__":
    main()
