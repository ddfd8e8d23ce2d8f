"""What every process of a scoring run needs to know, and the work of each on one block."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from marketray.errors import MarketrayError, ModelError
from marketray.lake import Lake
from marketray.sentiment.batching import Tokens
from marketray.sentiment.cache import REFUSED_SCHEMA, SCORE_SCHEMA, ScoreCache
from marketray.sentiment.checkpoint import Checkpoint, find_checkpoint
from marketray.sentiment.finbert import FinBert
from marketray.sentiment.texts import unscorable
from marketray.sentiment.tokenizer import tokenize

__all__ = [
    "Block",
    "Scorer",
    "ScoringJob",
    "pack",
    "score_block",
    "store_block",
    "tokenize_block",
    "unpack",
]

Block = dict[str, Any]
"""One row of a Ray dataset: the name of a block of texts, its packed tables, and what was found."""

_IDS = pa.list_(pa.int32())
NOT_FINITE = "the model's output is not finite"


@dataclass(frozen=True)
class ScoringJob:
    """A scoring run; small, and equal on every node.

    Attributes
    ----------
    checkpoint, pinned, home:
        The model as the driver found it, `sentiment.revision`, and where relative folders start.
    tokenizer, pad:
        The tokenizer as JSON, and its padding id.
    device, dtype, token_budget, compiled, threads:
        See `FinBert`.
    scoring_id:
        See `Checkpoint.scoring_id`.
    lake_uri:
        Where blocks are stored; None hands the scores back instead.
    """

    checkpoint: Checkpoint
    pinned: str | None
    home: Path
    tokenizer: str
    pad: int
    device: str
    dtype: str
    token_budget: int
    compiled: bool
    threads: int | None
    scoring_id: str
    lake_uri: str | None = None

    def load(self) -> FinBert:
        """The model on this node.

        Raises
        ------
        ModelError
            This node has another revision than the driver.
        """
        pinned = self.pinned if self.checkpoint.folder.is_dir() else self.checkpoint.revision
        found = find_checkpoint(self.checkpoint.name, pinned, self.home)
        if found.revision != self.checkpoint.revision:
            msg = (
                f"sentiment.model={found.name!r}: this node has the revision {found.revision}, the driver "
                f"{self.checkpoint.revision}"
            )
            raise ModelError(msg, hint="put the same checkpoint on every node")
        return FinBert(
            found,
            device=self.device,
            dtype=self.dtype,
            pad=self.pad,
            token_budget=self.token_budget,
            compiled=self.compiled,
            threads=self.threads,
        )


def pack(table: pa.Table) -> bytes:
    """A table as Arrow IPC bytes, so that it travels as one value of a row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(data: bytes) -> pa.Table:
    """The table that `pack` made `data` of, in one chunk."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all().combine_chunks()


def tokenize_block(block: Block, job: ScoringJob) -> Block:
    """Texts become token ids; a text that is not given to the model gets its reason and no ids."""
    texts = unpack(block["texts"])
    ids = tokenize(job.tokenizer, texts["text"].to_pylist())
    reasons = pa.array(map(unscorable, texts["text"].to_pylist()), pa.string())
    columns = {"text_hash": texts["text_hash"].cast(pa.string()), "ids": ids, "reason": reasons}
    return {"block": block["block"], "texts": pack(pa.table(columns))}


class Scorer:
    """The model of one scoring process, loaded when the first block comes."""

    def __init__(self, job: ScoringJob) -> None:
        # Threads that spin while they wait for one another stand still on a machine with other work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._job = job

    @cached_property
    def model(self) -> FinBert:
        """The loaded model."""
        return self._job.load()

    def __call__(self, block: Block) -> Block:
        """Scores of a tokenised block.

        Errors that marketray raises on purpose come back in the row, since Ray Data keeps only the text of
        an exception; the driver raises them again as what they were.
        """
        row = {"block": block["block"], "pid": os.getpid()} | dict.fromkeys(("error", "message", "hint"), "")
        try:
            model = self.model
            started = time.time()
            row |= score_block(unpack(block["texts"]), model) | {"started_at": started}
        except MarketrayError as e:
            row |= {"error": type(e).__name__, "message": e.message, "hint": e.hint or ""}
        return row | {"ended_at": time.time()}


def score_block(texts: pa.Table, model: FinBert) -> Block:
    """Tables of the scores and of the refused texts, packed, and what they took.

    Parameters
    ----------
    texts:
        Columns text_hash, ids (list<int32>) and reason, null where the text goes to the model.
    """
    given = texts.filter(pc.is_null(texts["reason"])).combine_chunks()
    tokens = Tokens.from_arrow(pa.concat_arrays(given["ids"].chunks or [pa.array([], _IDS)]))
    result = model.score(tokens)
    finite = np.isfinite(result.probabilities).all(axis=1)
    columns = [*result.probabilities[finite].T, tokens.lengths[finite]]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, list(SCORE_SCHEMA)[1:], strict=True)]
    scores = pa.table([given["text_hash"].filter(pa.array(finite)), *arrays], schema=SCORE_SCHEMA)
    lost = given["text_hash"].filter(pa.array(~finite))
    refused = pa.concat_tables(
        [
            texts.filter(pc.is_valid(texts["reason"])).select(REFUSED_SCHEMA.names),
            pa.table([lost, pa.repeat(pa.scalar(NOT_FINITE), len(lost))], schema=REFUSED_SCHEMA),
        ]
    )
    return {
        "scores": pack(scores),
        "refused": pack(refused),
        "texts": texts.num_rows,
        "tokens": int(tokens.lengths.sum()),
        "padded_tokens": result.padded_tokens,
        "passes": result.passes,
    }


def store_block(block: Block, job: ScoringJob) -> Block:
    """Write a scored block to the lake; the row goes on without its tables."""
    if block["error"] or job.lake_uri is None:
        return block
    detail = {"model": job.checkpoint.name, "revision": job.checkpoint.revision, "device": job.device}
    cache = ScoreCache(Lake(job.lake_uri), job.scoring_id)
    cache.store(block["block"], unpack(block["scores"]), unpack(block["refused"]), detail)
    return {name: value for name, value in block.items() if name not in ("scores", "refused")}
