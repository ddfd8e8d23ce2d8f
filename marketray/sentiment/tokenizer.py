"""Text to token ids with the checkpoint's own fast tokenizer."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from marketray.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from marketray.sentiment.checkpoint import Checkpoint

__all__ = ["export_tokenizer", "tokenize"]


def export_tokenizer(checkpoint: Checkpoint, max_tokens: int) -> tuple[str, int]:
    """The tokenizer as JSON, cutting texts at `max_tokens`, and the id that pads.

    The driver reads the files once; tasks build the tokenizer from the JSON without importing torch.

    Raises
    ------
    ModelError
        The tokenizer has no fast form, has no padding id, or the model cannot read `max_tokens` tokens.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = str(checkpoint.folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        msg = f"sentiment.model={checkpoint.name!r}: its tokenizer has no fast form or no padding token"
        raise ModelError(msg, hint="add a tokenizer.json with a padding token to the checkpoint")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    longest = getattr(config, "max_position_embeddings", max_tokens)
    if max_tokens > longest:
        msg = f"sentiment.max_tokens={max_tokens}; {checkpoint.name!r} reads at most {longest} tokens"
        raise ModelError(msg, hint=f"set sentiment.max_tokens to {longest} or less")
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_tokens)
    return str(backend.to_str()), int(tokenizer.pad_token_id)


def tokenize(tokenizer: str, texts: Sequence[str]) -> pa.ListArray:
    """Token ids of each text, special tokens included; list<int32> of length len(texts)."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a task has one CPU
    encoded = [encoding.ids for encoding in _build(tokenizer).encode_batch_fast(list(texts))]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    ids = np.fromiter(chain.from_iterable(encoded), np.int32, offsets[-1])
    return pa.ListArray.from_arrays(offsets, ids)


@lru_cache(maxsize=2)
def _build(tokenizer: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer)
