from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.dataset.rows import row_id_hash, row_ids
from marketray.dataset.splits import SPLITS, Split, gap_before, make_split
from marketray.errors import DataError
from marketray.settings import SplitSettings
from tests.dataset.synthetic import MINUTE

DAY = 24 * 60


def rows(days: int, per_day: int = 390, horizon: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decision times, label ends and session opens: `per_day` minutes a day, labels to the exact horizon."""
    start = np.repeat(np.arange(days) * DAY, per_day)
    decision = start + np.tile(np.arange(per_day), days)
    return decision * MINUTE, (decision + horizon) * MINUTE, start * MINUTE


def test_the_default_split_is_the_law_in_numbers() -> None:
    decision, ended, opened = rows(100)  # 39,000 rows
    split = make_split("X", decision, ended, opened, SplitSettings())
    oot2 = 1_950  # 5 % of all
    edges = [int(37_050 * s) for s in (0, 0.6, 0.75, 0.9, 1.0)]
    assert [b.start for b in split.blocks.values()] == [*edges[:-1], 37_050]
    assert split.blocks["oot2"].rows == oot2
    # row 22,230 is the first of day 57: nothing to purge; 1 % of 22,230 rows is less than a session
    assert (split.blocks["train"].purged, split.blocks["train"].embargoed) == (0, 223)
    assert split.blocks["train"].stop == 22_230 - 223
    # row 27,787 lies inside a session: 29 labels before it reach past its decision
    assert (split.blocks["validation"].purged, split.blocks["validation"].embargoed) == (29, 56)
    assert split.blocks["oot2"].purged == split.blocks["oot2"].embargoed == 0
    assert list(split.blocks) == list(SPLITS)


def test_the_embargo_is_one_session_in_a_long_block() -> None:
    decision, ended, opened = rows(1_000, per_day=60)
    split = make_split("X", decision, ended, opened, SplitSettings())
    assert split.blocks["train"].embargoed == 60
    assert split.cv[0].embargoed == 60


def test_oot2_is_capped_at_its_largest_size() -> None:
    decision, ended, opened = rows(100)
    split = make_split("X", decision, ended, opened, SplitSettings(oot2_max_rows=500))
    assert split.blocks["oot2"].rows == 500
    assert split.blocks["oot2"].stop == len(decision)


def test_folds_are_the_last_shares_of_train_and_validation() -> None:
    decision, ended, opened = rows(100)
    split = make_split("X", decision, ended, opened, SplitSettings())
    n = split.blocks["train"].rows + split.blocks["validation"].rows
    size = int(n * 0.15)
    assert [f.start for f in split.cv] == [n - 3 * size, n - 2 * size, n - size]
    assert [f.stop - f.start for f in split.cv] == [size] * 3
    assert split.folds[0] == (slice(0, split.cv[0].train_stop), slice(n - 3 * size, n - 2 * size))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1_200, 3_000),
    horizon=st.integers(1, 90),
    share=st.floats(0.02, 0.3),
)
def test_no_block_or_fold_touches_what_follows(seed: int, n: int, horizon: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    decision = np.cumsum(rng.choice([1, 1, 1, 1, 2, 7, 900], n)) * MINUTE
    late = np.maximum.accumulate(decision + rng.integers(max(1, horizon - 5), horizon + 1, n) * MINUTE)
    opened = decision // (500 * MINUTE)
    split = make_split("X", decision, late, opened, SplitSettings(oot2_share=share))
    blocks = list(split.blocks.values())
    for earlier, later in pairwise(blocks):
        assert late[earlier.start : earlier.stop].max() <= decision[later.start]
        assert earlier.stop + earlier.purged + earlier.embargoed == later.start
        assert earlier.purged == (late[earlier.start : later.start] > decision[later.start]).sum()
    kept = np.r_[blocks[0].start : blocks[0].stop, blocks[1].start : blocks[1].stop]
    for train, score in split.folds:
        assert train.stop < score.start
        assert late[kept][train].max() <= decision[kept][score][0]
    assert split.cv[-1].stop == len(kept)


def test_the_gap_keeps_labels_that_end_at_the_next_decision() -> None:
    decision = np.arange(200) * MINUTE
    assert gap_before(0, 100, decision, decision + 10 * MINUTE, 50, edge=100) == (90, 9, 1)
    assert gap_before(0, 100, decision, decision + 10 * MINUTE, 0, edge=100) == (91, 9, 0)


def test_row_ids_name_instrument_and_decision() -> None:
    us = np.array([1_704_205_860_000_000])  # 2024-01-02 14:31 UTC
    ids = row_ids("SPX500_USD", us)
    assert ids.to_list() == ["SPX500_USD@20240102T1431"]
    assert row_id_hash(ids) == row_id_hash(np.array(ids.to_list()))
    assert row_id_hash(ids) != row_id_hash(row_ids("OTHER", us))


def test_a_split_survives_json() -> None:
    decision, ended, opened = rows(30)
    split = make_split("X", decision, ended, opened, SplitSettings())
    stored = json.loads(json.dumps(split.to_json()))
    assert Split.from_json(stored) == split
    assert stored["blocks"]["train"]["rows"] == split.blocks["train"].rows
    assert split.blocks["train"].first_decision_at == "1970-01-01T00:00:00+00:00"


def test_too_few_rows_are_refused() -> None:
    decision, ended, opened = rows(1, per_day=12)
    with pytest.raises(DataError, match="train has no rows left out of 12 eligible"):
        make_split("X", decision, ended, opened, SplitSettings())
    decision, ended, opened = rows(1, per_day=60)
    with pytest.raises(DataError, match="validation has no rows left"):
        make_split("X", decision, ended, opened, SplitSettings())


def test_folds_without_training_rows_are_refused() -> None:
    decision, ended, opened = rows(100, per_day=30, horizon=29)
    with pytest.raises(DataError, match="training part of fold 0 has no rows"):
        make_split("X", decision, ended, opened, SplitSettings(cv_folds=3, cv_share=0.333))
    with pytest.raises(DataError, match="train has no rows left out of 0"):
        make_split("X", decision[:0], ended[:0], opened[:0], SplitSettings())
