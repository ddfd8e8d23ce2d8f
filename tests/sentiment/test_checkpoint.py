"""Finding a checkpoint: its revision, its label order, and clear refusals without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from marketray.errors import ModelError, SettingsError
from marketray.sentiment.checkpoint import find_checkpoint
from tests.sentiment.checkpoints import FINBERT_LABELS, save_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a hub that nothing can reach."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(cache: Path, saved: Path, commit: str) -> Path:
    model = cache / "models--someone--finbert"
    shutil.copytree(saved, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return model / "snapshots" / commit


def test_relative_folders_start_at_home(saved: Path) -> None:
    found = find_checkpoint("./tiny", None, saved.parent)
    assert found.folder == saved
    assert found.order == (0, 1, 2)


def test_the_revision_of_a_folder_is_its_content(saved: Path, tmp_path: Path) -> None:
    first = find_checkpoint(str(saved), None, tmp_path)
    copied = shutil.copytree(saved, tmp_path / "copy")
    assert find_checkpoint(str(copied), None, tmp_path).revision == first.revision
    (copied / "vocab.txt").write_text("[PAD]\n")
    assert find_checkpoint(str(copied), None, tmp_path).revision != first.revision


def test_a_folder_can_be_pinned(saved: Path, tmp_path: Path) -> None:
    revision = find_checkpoint(str(saved), None, tmp_path).revision
    assert find_checkpoint(str(saved), revision[:10], tmp_path).revision == revision
    with pytest.raises(ModelError, match=r"has the content .*; sentiment.revision='0000'"):
        find_checkpoint(str(saved), "0000", tmp_path)


def test_a_cached_model_is_known_by_its_commit(saved: Path, offline: Path, tmp_path: Path) -> None:
    commit = "0123456789" * 4
    folder = put_in_cache(offline, saved, commit)
    found = find_checkpoint("someone/finbert", None, tmp_path)
    assert (found.folder, found.revision) == (folder, commit)


def test_a_model_that_cannot_be_had_says_how_to_get_it(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'ProsusAI/finbert' .*cannot be had(.|\n)*hf download"):
        find_checkpoint("ProsusAI/finbert", None, tmp_path)


def test_pickled_weights_are_not_loaded(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match=r"has no \*\.safetensors(.|\n)*convert them once"):
        find_checkpoint(str(folder), None, tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "a tokenizer"])
def test_an_incomplete_folder_is_refused(saved: Path, tmp_path: Path, missing: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "incomplete")
    for name in ["config.json"] if missing == "config.json" else ["tokenizer.json", "vocab.txt"]:
        (folder / name).unlink()
    with pytest.raises(SettingsError, match=f"has no {missing}"):
        find_checkpoint(str(folder), None, tmp_path)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (FINBERT_LABELS, (0, 1, 2)),
        ({0: "Neutral", 1: "Positive", 2: "Negative"}, (1, 2, 0)),
        ({0: "NEGATIVE", 1: "neutral", 2: "positive"}, (2, 0, 1)),
    ],
)
def test_the_label_order_is_the_model_s_own(
    saved: Path, tmp_path: Path, labels: dict[int, str], order: tuple[int, ...]
) -> None:
    folder = relabelled(saved, tmp_path, labels)
    assert find_checkpoint(str(folder), None, tmp_path).order == order


@pytest.mark.parametrize(
    "labels",
    [
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {0: "positive", 1: "negative"},
        {0: "positive", 1: "negative", 2: "neutral", 3: "Neutral"},
    ],
)
def test_other_labels_are_refused(saved: Path, tmp_path: Path, labels: dict[int, str]) -> None:
    folder = relabelled(saved, tmp_path, labels)
    with pytest.raises(ModelError, match="required: positive, negative, neutral"):
        find_checkpoint(str(folder), None, tmp_path)


def relabelled(saved: Path, tmp_path: Path, labels: dict[int, str]) -> Path:
    folder = shutil.copytree(saved, tmp_path / "relabelled")
    config = json.loads((folder / "config.json").read_text()) | {"id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_scores_are_named_by_revision_length_and_format(saved: Path, tmp_path: Path) -> None:
    found = find_checkpoint(str(saved), None, tmp_path)
    names = {
        found.scoring_id(512, "float32"),
        found.scoring_id(256, "float32"),
        found.scoring_id(512, "bfloat16"),
    }
    assert len(names) == 3
    assert all(name.startswith("tiny-") for name in names)
