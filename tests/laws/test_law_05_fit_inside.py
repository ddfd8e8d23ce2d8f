"""Law 5, fit inside: a fold's training part ends before anything that its scored rows can see."""

from __future__ import annotations

import numpy as np

from marketray.dataset.load import Block
from marketray.dataset.splits import make_split
from marketray.evaluation.metrics import baselines
from marketray.settings import SplitSettings

MINUTE = 60_000_000


def market(days: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions, label ends and session opens of days of 390 minutes, some of them missing."""
    rng = np.random.default_rng(seed)
    start = np.repeat(np.arange(days) * 1_440, 390)
    decision = start + np.tile(np.arange(390), days)
    kept = rng.random(len(decision)) > 0.05
    decision, start = decision[kept], start[kept]
    return decision * MINUTE, (decision + rng.integers(25, 31, len(decision))) * MINUTE, start * MINUTE


def test_a_fold_is_fitted_on_labels_that_ended_before_it_begins() -> None:
    decision, ended, opened = market()
    split = make_split("X", decision, ended, opened, SplitSettings())
    rows = np.r_[tuple(slice(split.blocks[s].start, split.blocks[s].stop) for s in ("train", "validation"))]
    for fold, (fit, score) in zip(split.cv, split.folds, strict=True):
        first = decision[rows][score][0]
        assert ended[rows][fit].max() <= first
        assert (
            fold.embargoed >= min(390, int(0.01 * fold.start)) * 0.9
        )  # a session, or 1 % of what is fitted on
        assert fit.stop + fold.purged + fold.embargoed == score.start


def test_folds_and_blocks_do_not_depend_on_what_comes_later() -> None:
    """Labels of later rows may change; where earlier blocks end depends on times alone."""
    decision, ended, opened = market()
    split = make_split("X", decision, ended, opened, SplitSettings())
    later = ended.copy()
    later[split.blocks["test"].start :] += 4 * MINUTE
    again = make_split("X", decision, later, opened, SplitSettings())
    assert again.cv == split.cv
    assert [again.blocks[s] for s in ("train", "validation")] == [
        split.blocks[s] for s in ("train", "validation")
    ]


def test_the_training_mean_knows_only_training_labels() -> None:
    rng = np.random.default_rng(1)
    train_y, y = rng.normal(1e-4, 1e-3, 500), rng.normal(0, 1e-3, 50)
    us = np.arange(50, dtype=np.int64) * MINUTE
    names = np.array([f"X@{k}" for k in range(50)])
    values = rng.normal(0, 1e-3, (50, 1)).astype(np.float32)

    def forecasts(labels: np.ndarray) -> dict[str, np.ndarray]:
        return baselines(train_y, Block(names, us, us, us, labels, np.ones(50), ("return_30",), values))

    before, after = forecasts(y), forecasts(y + 0.5)
    for name, forecast in before.items():
        np.testing.assert_array_equal(forecast, after[name])
    assert before["training_mean"][0] == train_y.mean()
