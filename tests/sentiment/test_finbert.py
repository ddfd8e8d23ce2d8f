"""The classifier against transformers' own way of running it, one text at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.errors import ModelError
from marketray.sentiment.batching import Tokens
from marketray.sentiment.checkpoint import find_checkpoint
from marketray.sentiment.finbert import FinBert
from marketray.sentiment.job import NOT_FINITE, pack, score_block, tokenize_block, unpack
from marketray.sentiment.tokenizer import export_tokenizer, tokenize
from tests.sentiment.checkpoints import WORDS, make_texts, plain_scores, save_checkpoint

TEXTS = make_texts(60, longest=90)["text"].to_list()  # some longer than the model reads
LABELS = {0: "neutral", 1: "positive", 2: "negative"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", LABELS)


@pytest.fixture(scope="module")
def tokens(saved: Path) -> Tokens:
    tokenizer, _ = export_tokenizer(find_checkpoint(str(saved), None, saved), 64)
    return Tokens.from_arrow(tokenize(tokenizer, TEXTS))


def load(saved: Path, dtype: str = "float32", token_budget: int = 256, **options: bool) -> FinBert:
    checkpoint = find_checkpoint(str(saved), None, saved)
    return FinBert(
        checkpoint, device="cpu", dtype=dtype, pad=0, token_budget=token_budget, threads=1, **options
    )


def test_tokens_are_the_library_s_own(saved: Path, tokens: Tokens) -> None:
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(saved)(TEXTS, truncation=True, max_length=64)["input_ids"]
    ids = [tokens.ids[s : s + n].tolist() for s, n in zip(tokens.starts, tokens.lengths, strict=True)]
    assert ids == plain
    assert max(map(len, ids)) == 64


def test_scores_are_the_plain_way_s_whatever_the_batches(saved: Path, tokens: Tokens) -> None:
    wanted = plain_scores(saved, TEXTS, (1, 2, 0))
    assert wanted.std(axis=0).min() > 0.01  # texts that differ
    for budget in (8, 256, 100_000):
        scores = load(saved, token_budget=budget).score(tokens)
        np.testing.assert_allclose(scores.probabilities, wanted, atol=2e-6)  # float32 sums in another order
    assert (scores.passes, scores.padded_tokens) == (1, 64 * len(TEXTS))


def test_bfloat16_keeps_the_label_where_it_is_not_a_toss_up(saved: Path, tokens: Tokens) -> None:
    exact = load(saved).score(tokens).probabilities
    short = load(saved, "bfloat16").score(tokens).probabilities
    clear = np.diff(np.sort(exact, axis=1)[:, 1:], axis=1)[:, 0] > 0.1
    assert clear.sum() > 20
    assert (exact.argmax(1) == short.argmax(1))[clear].all()
    assert np.abs(exact - short).max() < 0.05


def test_no_text_needs_no_pass(saved: Path) -> None:
    empty = Tokens(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))
    scores = load(saved).score(empty)
    assert (scores.probabilities.shape, scores.passes) == ((0, 3), 0)


def limit_memory(model: FinBert, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    run = model._run

    def limited(**inputs: torch.Tensor) -> object:
        if inputs["input_ids"].numel() > most:
            raise torch.OutOfMemoryError("no memory left")
        return run(**inputs)

    monkeypatch.setattr(model, "_run", limited)


def test_a_batch_that_does_not_fit_is_split(
    saved: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(saved, token_budget=1_000)
    wanted = model.score(tokens).probabilities
    limit_memory(model, 130, monkeypatch)
    np.testing.assert_allclose(model.score(tokens).probabilities, wanted, atol=2e-6)


def test_one_text_that_does_not_fit_is_an_error(
    saved: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(saved)
    limit_memory(model, 63, monkeypatch)
    with pytest.raises(ModelError, match="one text of 64 tokens does not fit in memory: no memory left"):
        model.score(tokens)


def test_compiling_makes_one_program_for_all_shapes(
    saved: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    compile_ = torch.compile
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        graphs.append(1)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda m, dynamic: compile_(m, dynamic=dynamic, backend=count))
    compiled = load(saved, compiled=True).score(tokens).probabilities
    np.testing.assert_allclose(compiled, load(saved).score(tokens).probabilities, atol=2e-6)
    assert len(graphs) <= 3  # with and without a mask, and a batch of one text


def test_a_block_s_texts_are_scored_or_refused(saved: Path) -> None:
    class Job:
        tokenizer = export_tokenizer(find_checkpoint(str(saved), None, saved), 64)[0]

    texts = ["", "short", *TEXTS[:5], f"{WORDS[0]} breaks the model"]
    frame = pl.DataFrame({"text_hash": [f"h{i}" for i in range(len(texts))], "text": texts})
    tokenised = tokenize_block({"block": "b", "texts": pack(frame.to_arrow())}, Job())
    model = load(saved)
    score = model.score

    def broken(tokens: Tokens):
        scores = score(tokens)
        scores.probabilities[-1] = np.nan
        return scores

    model.score = broken
    row = score_block(unpack(tokenised["texts"]), model)
    refused = dict(zip(*unpack(row["refused"]).to_pydict().values(), strict=True))
    assert refused == {
        "h0": "the text is empty",
        "h1": "the text is shorter than 10 characters",
        "h7": NOT_FINITE,
    }
    scores = unpack(row["scores"])
    assert scores["text_hash"].to_pylist() == ["h2", "h3", "h4", "h5", "h6"]
    got = np.stack([scores[c].to_numpy() for c in ("positive", "negative", "neutral")], 1)
    np.testing.assert_allclose(got, plain_scores(saved, TEXTS[:5], (1, 2, 0)), atol=2e-6)
    assert row["texts"] == 8


def test_a_model_reads_no_more_than_its_positions(saved: Path) -> None:
    with pytest.raises(ModelError, match="sentiment.max_tokens=65; .* reads at most 64 tokens"):
        export_tokenizer(find_checkpoint(str(saved), None, saved), 65)


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "bare")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no fast form or no padding token"):
        export_tokenizer(find_checkpoint(str(folder), None, tmp_path), 64)


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match=r"broken cannot be loaded: .*\n?(.|\n)*again"):
        load(folder)


def test_a_device_that_is_not_there_is_refused(saved: Path) -> None:
    checkpoint = find_checkpoint(str(saved), None, saved)
    with pytest.raises(ModelError, match="sentiment.device='mps' is not available to torch"):
        FinBert(checkpoint, device="mps", dtype="float32", pad=0, token_budget=64)


def test_a_gpu_without_bfloat16_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(ModelError, match="Tesla T4 does not compute in it"):
        FinBert(
            find_checkpoint(str(saved), None, saved), device="cuda", dtype="bfloat16", pad=0, token_budget=64
        )
