"""The present champion on new rows: its forecasts, or why there are none; an outage is neither."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marketray.errors import DataError, ModelError, RegistryError
from marketray.evaluation.champion import score_champion
from marketray.evaluation.gate import Champion
from marketray.models.baselines import BaselineModel

CARD = {"instrument": "SPX", "horizon_minutes": 30, "task": "direction", "catalog_hash": "c"}
VALUES = np.random.default_rng(3).uniform(size=(40, 2)).astype(np.float32)
COLUMNS = ("last", "other")


class Rows:
    """A block of two columns."""

    values = VALUES

    def select(self, columns: tuple[str, ...]) -> Rows:
        if tuple(columns) != COLUMNS:
            msg = f"columns {columns} are not in this block"
            raise DataError(msg)
        return self


class Download:
    """A registry whose champion is version 3; fetching it gives `folder` or fails with it."""

    def __init__(self, folder: Path | Exception) -> None:
        self.folder = folder

    def champion(self) -> Any:
        return SimpleNamespace(name="m", version=3, verdict="bootstrap")

    def download(self, version: int) -> Path:
        assert version == 3
        if isinstance(self.folder, Exception):
            raise self.folder
        return self.folder


def score(registry: Any) -> Champion | None:
    labels = SimpleNamespace(horizon_minutes=30, task="direction")
    forecasts = SimpleNamespace(
        settings=SimpleNamespace(instrument="SPX", labels=labels), rows=lambda _: SimpleNamespace(centre=0.5)
    )
    return score_champion(registry, forecasts, Rows(), "c")  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A champion that forecasts the first column."""
    BaselineModel("last_return", "direction", COLUMNS, {"column": "last"}, 0.0).save(tmp_path)
    (tmp_path / "serving.json").write_text(json.dumps(CARD))
    return tmp_path


def test_its_forecasts_are_centred_as_those_it_is_compared_with(folder: Path) -> None:
    found = score(Download(folder))
    assert found is not None
    assert (found.version, found.verdict, found.reason) == (3, "bootstrap", "")
    np.testing.assert_allclose(found.prediction, VALUES[:, 0] - 0.5, atol=1e-7)
    assert score(SimpleNamespace(champion=lambda: None)) is None


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (json.dumps({**CARD, "instrument": "DAX", "catalog_hash": "d"}), "another catalog_hash, instrument"),
        ("{", "its serving.json cannot be read"),
        (None, "it was registered without a serving.json"),
    ],
)
def test_a_champion_made_for_something_else_has_a_reason(folder: Path, card: str | None, reason: str) -> None:
    if card is None:
        (folder / "serving.json").unlink()
    else:
        (folder / "serving.json").write_text(card)
    found = score(Download(folder))
    assert found is not None
    assert (found.prediction, reason in found.reason) == (None, True)


def test_a_champion_of_other_columns_or_another_format_has_a_reason(folder: Path) -> None:
    model = json.loads((folder / "model.json").read_text())
    for change, reason in (
        ({"columns": ["last", "gone"]}, "not in this block"),
        ({"format": 99}, "format=99"),
    ):
        (folder / "model.json").write_text(json.dumps({**model, **change}))
        found = score(Download(folder))
        assert found is not None
        assert (found.prediction, reason in found.reason) == (None, True)


@pytest.mark.parametrize(
    "trouble", [RegistryError("downloading m failed: refused"), ModelError("refused: no model.json in it")]
)
def test_an_outage_while_it_is_fetched_is_an_error_and_no_reason(trouble: Exception) -> None:
    with pytest.raises(
        RegistryError, match=r"m: champion version 3 cannot be fetched and read: .*refused"
    ) as e:
        score(Download(trouble))
    assert e.value.hint is not None
    assert "run again" in e.value.hint


@pytest.mark.parametrize("name", ["serving.json", "model.json"])
def test_a_local_copy_that_cannot_be_read_is_an_error_and_no_reason(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RegistryError, match="champion version 3 cannot be fetched and read: .*directory"):
        score(Download(folder))
