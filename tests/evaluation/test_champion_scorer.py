"""A champion that sees news is compared only with candidates whose news the same model scored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from marketray.evaluation.champion import score_champion
from marketray.models.baselines import BaselineModel

CARD = {"instrument": "SPX", "horizon_minutes": 30, "task": "direction", "catalog_hash": "c"}


class Rows:
    """A block of one column."""

    values = np.linspace(0, 1, 9, dtype=np.float32)[:, None]

    def select(self, columns: tuple[str, ...]) -> Rows:
        assert tuple(columns) == ("last",)
        return self


@pytest.mark.parametrize(
    ("theirs", "now", "compared"),
    [
        ("finbert-1/headline", "finbert-1/headline", True),
        ("finbert-1/headline", "finbert-mini-2/headline", False),
        ("finbert-1/headline", None, False),
        (None, "finbert-mini-2/headline", True),  # it sees no news
    ],
)
def test_a_champion_of_another_scorer_is_not_compared(
    tmp_path: Path, theirs: str | None, now: str | None, compared: bool
) -> None:
    BaselineModel("last_return", "direction", ("last",), {"column": "last"}, 0.0).save(tmp_path)
    (tmp_path / "serving.json").write_text(json.dumps({**CARD, "scorer": theirs}))
    registry = SimpleNamespace(
        champion=lambda: SimpleNamespace(name="m", version=3, verdict="bootstrap"),
        download=lambda _: tmp_path,
    )
    labels = SimpleNamespace(horizon_minutes=30, task="direction")
    settings = SimpleNamespace(instrument="SPX", labels=labels)
    forecasts = SimpleNamespace(settings=settings, rows=lambda _: SimpleNamespace(centre=0.5))
    found = score_champion(registry, forecasts, Rows(), "c", now)  # type: ignore[arg-type]
    assert found is not None
    assert found.reason == ("" if compared else "it was made for another scorer")
    assert (found.prediction is not None) is compared
