"""Which features are distributed otherwise on later rows than in training, by Evidently's per-column test.

The test is Evidently's normed Wasserstein distance: the mean horizontal distance between the two empirical
distribution functions, over the standard deviation of the reference. It is an effect size, so it does not
grow with the number of rows as a p-value does, which on a hundred thousand dependent rows calls everything
drift.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

if TYPE_CHECKING:
    from marketray.settings_gate import DriftRule

__all__ = ["METHOD", "feature_drift"]

logger = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]

METHOD = "Evidently: Wasserstein distance, normed by the training standard deviation"

_SHOWN = 30


def feature_drift(
    reference: Float32Array, current: Float32Array, columns: Sequence[str], rule: DriftRule, *, seed: int = 0
) -> dict[str, Any]:
    """Compare the columns of two blocks of rows.

    Parameters
    ----------
    reference, current:
        Training and later rows, shapes (n, p) and (m, p), NaN where a feature has no value.
    columns:
        Names of the p columns.
    rule:
        Distance from which a column counts as drifted, and how many rows of either side are compared.
    seed:
        Of the draw of those rows.

    Returns
    -------
    dict
        share, drifted and columns (counts), threshold, method, rows {reference, current} compared, features:
        the 30 that moved most, each {feature, score, drifted}. A column with values on one side only has
        drifted, with score None, and comes first; one without any has not.

    Raises
    ------
    DataError
        The shapes do not fit together, or a side has no row.
    """
    if reference.shape[1:] != (len(columns),) or current.shape[1:] != (len(columns),):
        shapes = f"{reference.shape} and {current.shape}"
        msg = f"drift: got rows of shapes {shapes}; required: (n, {len(columns)}), one column a name"
        raise DataError(msg, hint="select the model's columns from both blocks")
    if not len(columns) or not len(reference) or not len(current):
        counts = f"{len(reference)} and {len(current)} rows of {len(columns)} columns"
        msg = f"drift: got {counts}; required: some of each"
        raise DataError(msg, hint="build the dataset from more bars")
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    before, after = _drawn(reference, rule.sample_rows, rng), _drawn(current, rule.sample_rows, rng)
    distance = _distance()
    scores = [distance(before[:, i], after[:, i]) for i in range(len(columns))]
    found = [
        {"feature": name, "score": _known(score), "drifted": bool(score >= rule.column_threshold)}
        for name, score in zip(columns, scores, strict=True)
    ]
    order = sorted(range(len(columns)), key=lambda i: (-scores[i], columns[i]))
    drifted = sum(bool(entry["drifted"]) for entry in found)
    logger.info("drift: %d of %d columns in %.1f s", drifted, len(columns), time.perf_counter() - started)
    return {
        "share": drifted / len(columns),
        "drifted": drifted,
        "columns": len(columns),
        "threshold": rule.column_threshold,
        "method": METHOD,
        "rows": {"reference": len(before), "current": len(after)},
        "features": [found[i] for i in order[:_SHOWN]],
    }


def _drawn(values: Float32Array, rows: int, rng: np.random.Generator) -> Float32Array:
    """At most `rows` rows, drawn without replacement and kept in their order."""
    if len(values) <= rows:
        return values
    return values[np.sort(rng.choice(len(values), rows, replace=False))]


def _known(score: float) -> float | None:
    return score if np.isfinite(score) else None


def _distance() -> Any:
    """Evidently's test as a function (reference column, current column) -> distance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import it uses what NumPy and Litestar deprecate
        from evidently.legacy.calculations.stattests import wasserstein_stat_test
        from evidently.legacy.core import ColumnType
    import pandas as pd

    def distance(reference: Float32Array, current: Float32Array) -> float:
        a = reference[np.isfinite(reference)].astype(np.float64)
        b = current[np.isfinite(current)].astype(np.float64)
        if not len(a) or not len(b):
            return float("inf") if len(a) or len(b) else 0.0
        unit = float(np.std(a)) or 1.0  # since Evidently takes a deviation below 0.001 for 0.001
        got = wasserstein_stat_test(pd.Series(a / unit), pd.Series(b / unit), ColumnType.Numerical, 0.0)
        return float(got.drift_score)

    return distance
