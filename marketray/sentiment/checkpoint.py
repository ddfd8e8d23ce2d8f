"""Where a classifier's files are, which revision they are, and what its labels mean; no torch here.

Only safetensors weights are loaded: a pickle runs code. A name that cannot be had is an error, never
replaced by another model.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from marketray.errors import ModelError, SettingsError
from marketray.hashing import digest

__all__ = ["LABELS", "PACKAGED", "Checkpoint", "find_checkpoint"]

LABELS = ("positive", "negative", "neutral")
"""The classes, in the order of every array and table of scores."""

PACKAGED = {"finbert-mini": Path(__file__).parent / "finbert_mini"}
"""Checkpoints that come with the package."""

_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Checkpoint:
    """A sequence classifier on disk.

    Attributes
    ----------
    name:
        As the settings name it.
    folder:
        Folder of its files on this node.
    revision:
        Commit hash of a Hugging Face model; of a folder, the digest of its files' content.
    order:
        Position among the model's outputs of positive, negative and neutral.
    """

    name: str
    folder: Path
    revision: str
    order: tuple[int, int, int]

    def scoring_id(self, max_tokens: int, dtype: str) -> str:
        """Name of the scores that this revision gives to texts cut at `max_tokens`, computed in `dtype`."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.name).name) or "model"
        return f"{slug}-{digest(self.revision, max_tokens, dtype)[:16]}"


def find_checkpoint(model: str, revision: str | None, home: Path) -> Checkpoint:
    """Find a model of the package, a folder, or a Hugging Face model; the local cache is asked first.

    Parameters
    ----------
    model:
        A name of `PACKAGED`, a folder that starts with ``/``, ``~`` or ``.``, else a Hugging Face name.
    revision:
        Of a Hugging Face model a commit, branch or tag (default: its main branch). Of a folder the
        content hash that is required, or its first digits.
    home:
        Folder at which relative folders start.

    Raises
    ------
    SettingsError
        The folder lacks files, or the Hugging Face model cannot be had.
    ModelError
        The folder's content is not `revision`, or the labels are not positive, negative and neutral.
    """
    if model in PACKAGED or model.startswith(("/", "~", ".")):
        folder = PACKAGED.get(model) or home / Path(model).expanduser()
        _require_files(model, folder)
        content = _content_hash(folder)
        if revision is not None and not content.startswith(revision):
            msg = f"sentiment.model={model!r} has the content {content}; sentiment.revision={revision!r}"
            raise ModelError(msg, hint="restore the pinned files, or pin the content that is there")
    else:
        folder = _snapshot(model, revision)
        content = folder.name if _COMMIT.fullmatch(folder.name) else _content_hash(folder)
    return Checkpoint(model, folder, content, _label_order(model, folder))


def _missing(folder: Path) -> str | None:
    for what, patterns in (
        ("config.json", ("config.json",)),
        ("*.safetensors", ("*.safetensors",)),
        ("a tokenizer", _TOKENIZERS),
    ):
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            return what
    return None


def _require_files(model: str, folder: Path) -> None:
    missing = _missing(folder)
    if missing is not None:
        msg = f"sentiment.model={model!r}: {folder} has no {missing}"
        hint = (
            "give a folder that `save_pretrained` wrote; weights in a pickle are not loaded, convert them "
            "once with AutoModelForSequenceClassification.from_pretrained(…).save_pretrained(folder)"
        )
        raise SettingsError(msg, hint=hint)


def _snapshot(model: str, revision: str | None) -> Path:
    import httpx
    from huggingface_hub import errors, snapshot_download

    problems = (
        OSError,
        ValueError,
        httpx.HTTPError,
        errors.EntryNotFoundError,
        errors.RevisionResolutionError,
    )
    failure: Exception | None = None
    for local_only in (True, False):
        try:
            found = snapshot_download(
                model, revision=revision, allow_patterns=list(_FILES), local_files_only=local_only
            )
        except problems as e:
            failure = e
            continue
        if _missing(Path(found)) is None or not local_only:
            _require_files(f"{model}@{revision or 'main'}", Path(found))
            return Path(found)
    msg = f"sentiment.model={model!r} (revision={revision or 'main'}) cannot be had: {_first_line(failure)}"
    hint = (
        f"run `hf download {model}` where there is a network and set HF_HOME to its cache (weights published "
        "as pickles are converted once, see docs/news.md), or "
        "name a local folder (it starts with /, ~ or .); sentiment.model=finbert-mini needs no network"
    )
    raise SettingsError(msg, hint=hint) from failure


def _first_line(error: Exception | None) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _content_hash(folder: Path) -> str:
    h = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        h.update(f"{file.name}\n".encode())
        with file.open("rb") as source:
            h.update(hashlib.file_digest(source, "sha256").digest())
    return h.hexdigest()[:40]


def _label_order(model: str, folder: Path) -> tuple[int, int, int]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    labels = {str(label).lower(): int(i) for i, label in (config.get("id2label") or {}).items()}
    if set(labels) != set(LABELS) or sorted(labels.values()) != [0, 1, 2]:
        msg = (
            f"sentiment.model={model!r} has id2label={config.get('id2label')}; required: {', '.join(LABELS)}"
        )
        raise ModelError(msg, hint="choose a classifier of these three classes, or name them in config.json")
    return labels["positive"], labels["negative"], labels["neutral"]
