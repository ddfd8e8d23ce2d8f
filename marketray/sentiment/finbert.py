"""The classifier on its device: token ids in, probabilities out, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marketray.errors import ModelError
from marketray.sentiment.batching import Tokens, plan_batches

if TYPE_CHECKING:
    import torch

    from marketray.sentiment.checkpoint import Checkpoint

__all__ = ["FinBert", "Scores"]

_TENSOR_CORE_MULTIPLE = 8  # lengths on cuda are padded to this; other devices need no alignment


@dataclass(frozen=True)
class Scores:
    """Result for n texts.

    Attributes
    ----------
    probabilities:
        Float32, shape (n, 3): positive, negative, neutral. NaN where the model gave no finite output.
    passes:
        Forward passes of the model.
    padded_tokens:
        Tokens computed, padding included.
    """

    probabilities: npt.NDArray[np.float32]
    passes: int
    padded_tokens: int


class FinBert:
    """A sequence classifier loaded on one device.

    Parameters
    ----------
    checkpoint:
        Files and label order.
    device, dtype:
        ``cpu``, ``cuda`` or ``mps``; ``float32``, ``bfloat16`` or ``float16``.
    pad:
        Token id that pads.
    token_budget:
        Rows times padded length of a batch, at most.
    compiled:
        Whether torch.compile makes one program for all shapes: half a minute at the start.
    threads:
        CPU threads; None leaves torch's default.

    Raises
    ------
    ModelError
        The device is not there or cannot compute in `dtype`, or the files do not make a model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        dtype: str,
        pad: int,
        token_budget: int,
        compiled: bool = False,
        threads: int | None = None,
    ) -> None:
        import torch

        _require_device(device, dtype)
        if threads is not None:
            torch.set_num_threads(threads)
        self._device, self._pad, self._budget = torch.device(device), pad, token_budget
        self._order = list(checkpoint.order)
        self._multiple = _TENSOR_CORE_MULTIPLE if device == "cuda" else 1
        self._model = _load(checkpoint, getattr(torch, dtype)).to(self._device)
        self._run = torch.compile(self._model, dynamic=True) if compiled else self._model
        self._passes = self._padded = 0

    def score(self, tokens: Tokens) -> Scores:
        """Probabilities of each text. A batch that does not fit in memory is halved and tried again.

        Raises
        ------
        ModelError
            A single text does not fit in the device's memory.
        """
        import torch

        self._passes = self._padded = 0
        n = len(tokens.lengths)
        if not n:
            return Scores(np.empty((0, 3), np.float32), 0, 0)
        done: list[tuple[npt.NDArray[np.int64], torch.Tensor]] = []
        with torch.inference_mode():
            for rows in plan_batches(tokens.lengths, self._budget, self._multiple):
                self._score_rows(tokens, rows, done)
            # on a GPU the batches above are only queued; this waits for all of them at once
            computed = torch.cat([p for _, p in done]).cpu().numpy()
        probabilities = np.empty((n, 3), np.float32)
        probabilities[np.concatenate([rows for rows, _ in done])] = computed
        return Scores(probabilities, self._passes, self._padded)

    def _score_rows(
        self,
        tokens: Tokens,
        rows: npt.NDArray[np.int64],
        done: list[tuple[npt.NDArray[np.int64], torch.Tensor]],
    ) -> None:
        import torch

        try:
            done.append((rows, self._forward(tokens, rows)))
        except torch.OutOfMemoryError as e:
            if len(rows) == 1:
                msg = f"sentiment: one text of {tokens.lengths[rows[0]]} tokens does not fit in memory: {e}"
                raise ModelError(msg, hint="free the device's memory, or lower sentiment.max_tokens") from e
        else:
            return
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        for half in np.array_split(rows, 2):
            self._score_rows(tokens, half, done)

    def _forward(self, tokens: Tokens, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Probabilities of one batch on the device, float32, shape (len(rows), 3)."""
        import torch

        ids, real = tokens.padded(rows, self._pad, self._multiple)
        self._passes += 1
        self._padded += ids.size
        # A four-dimensional mask goes to the attention kernel as it is; from a flat one the library first
        # reads on the host whether anything is padded, which would wait for the GPU at every batch.
        mask = None if real.all() else self._send(real)[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        logits = self._run(input_ids=self._send(ids), attention_mask=mask).logits
        return torch.softmax(logits.float()[:, self._order], dim=-1)

    def _send(self, array: npt.NDArray[np.int32] | npt.NDArray[np.bool_]) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":  # from pinned memory the copy does not wait
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def _load(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            str(checkpoint.folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="sdpa",
            dtype=dtype,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as e:
        msg = f"sentiment.model={checkpoint.name!r}: {checkpoint.folder} cannot be loaded: {e}"
        raise ModelError(msg, hint="fetch or copy the checkpoint again") from e
    loaded: torch.nn.Module = model.eval()
    return loaded


def _require_device(device: str, dtype: str) -> None:
    import torch

    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device]:
        msg = f"sentiment.device={device!r} is not available to torch {torch.__version__} on this node"
        raise ModelError(msg, hint=f"install a torch built for {device}, or set sentiment.device to cpu")
    if device == "cuda" and dtype == "bfloat16" and torch.cuda.get_device_capability()[0] < 8:
        msg = f"sentiment.dtype=bfloat16: {torch.cuda.get_device_name()} does not compute in it"
        raise ModelError(msg, hint="set sentiment.dtype to float16")
