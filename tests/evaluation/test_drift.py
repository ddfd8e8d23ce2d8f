"""Drift of features: Evidently's distance against SciPy and brute force, samples, empty columns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from marketray.errors import DataError
from marketray.evaluation.drift import METHOD, feature_drift
from marketray.settings_gate import DriftRule

RULE = DriftRule(column_threshold=0.1)
RNG = np.random.default_rng(11)
COLUMNS = [f"f{i}" for i in range(6)]


def rows(n: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.normal(size=(n, 6))).astype(np.float32)


def test_scores_are_quantile_distances_in_training_deviations() -> None:
    before, after = rows(4_000), rows(4_000)
    after += np.float32([0.0, 0.05, 0.2, 0.5, 1.0, 2.0])
    found = feature_drift(before, after, COLUMNS, RULE)
    score = {entry["feature"]: entry["score"] for entry in found["features"]}
    for i, name in enumerate(COLUMNS):
        a, b = before[:, i].astype(float), after[:, i].astype(float)
        assert score[name] == pytest.approx(wasserstein_distance(a, b) / a.std(), rel=1e-9)
        by_hand = np.abs(np.sort(a) - np.sort(b)).mean() / a.std()  # equal counts: quantile by quantile
        assert score[name] == pytest.approx(by_hand, rel=1e-9)
    assert [entry["feature"] for entry in found["features"][:4]] == ["f5", "f4", "f3", "f2"]
    assert (found["drifted"], found["columns"], found["share"]) == (4, 6, pytest.approx(4 / 6))
    assert (found["threshold"], found["method"]) == (0.1, METHOD)
    assert found["rows"] == {"reference": 4_000, "current": 4_000}


def test_the_share_is_that_of_evidently_s_own_report() -> None:
    import warnings

    import pandas as pd

    before, after = rows(1_500), rows(1_500) + np.float32([0.0, 0.02, 0.2, 0.5, 0.01, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DriftedColumnsCount

        shape = DataDefinition(numerical_columns=COLUMNS)
        metric = DriftedColumnsCount(num_method="wasserstein", num_threshold=0.1)
        current, reference = (
            Dataset.from_pandas(pd.DataFrame(v, columns=COLUMNS).astype(float), data_definition=shape)
            for v in (after, before)
        )
        value = Report([metric]).run(current, reference).dict()["metrics"][0]["value"]
    found = feature_drift(before, after, COLUMNS, RULE)
    assert (found["drifted"], found["share"]) == (value["count"], pytest.approx(value["share"]))


def test_the_unit_of_a_feature_does_not_matter() -> None:
    before, after = rows(2_000), rows(2_000) * np.float32(1.3)
    units = np.float32([1e-6, 1e-4, 1e-2, 1, 1e3, 1e6])
    plain = feature_drift(before, after, COLUMNS, RULE)
    scaled = feature_drift(before * units, after * units, COLUMNS, RULE)
    for a, b in zip(plain["features"], scaled["features"], strict=True):
        assert a["feature"] == b["feature"]
        assert a["score"] == pytest.approx(b["score"], rel=1e-4)


def test_missing_and_constant_columns() -> None:
    before, after = rows(500), rows(500)
    before[:, 0] = after[:, 0] = np.nan  # no value anywhere
    after[:, 1] = np.nan  # values went away
    before[:, 2] = after[:, 2] = 3.0  # constant
    before[:, 3], after[:, 3] = 3.0, 4.0  # a constant that moved
    before[::2, 4] = np.nan
    found = feature_drift(before, after, COLUMNS, RULE)
    by_name = {entry["feature"]: entry for entry in found["features"]}
    assert found["features"][0] == {"feature": "f1", "score": None, "drifted": True}
    assert by_name["f0"] == {"feature": "f0", "score": 0.0, "drifted": False}
    assert by_name["f2"]["score"] == 0.0
    assert by_name["f3"] == {"feature": "f3", "score": pytest.approx(1_000.0), "drifted": True}
    known = before[1::2, 4].astype(float)
    want = wasserstein_distance(known, after[:, 4].astype(float)) / known.std()
    assert by_name["f4"]["score"] == pytest.approx(want, rel=1e-9)


def test_a_sample_is_seeded_and_close_to_all_rows() -> None:
    before, after = rows(30_000), rows(30_000) + np.float32(0.3)
    whole = feature_drift(before, after, COLUMNS, DriftRule(sample_rows=30_000))
    part = feature_drift(before, after, COLUMNS, RULE)
    assert part == feature_drift(before, after, COLUMNS, RULE)
    assert part["rows"] == {"reference": 5_000, "current": 5_000}
    want = {entry["feature"]: entry["score"] for entry in whole["features"]}
    for entry in part["features"]:
        assert entry["score"] == pytest.approx(want[entry["feature"]], abs=0.06)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"drift: got rows of shapes \(5, 6\) and \(5, 5\); required: \(n, 6\)"
    ):
        feature_drift(rows(5), rows(5)[:, :5], COLUMNS, RULE)
    with pytest.raises(DataError, match="drift: got 5 and 0 rows of 6 columns; required: some of each"):
        feature_drift(rows(5), rows(0), COLUMNS, RULE)
