"""Fitted features under the look-ahead audit: fitted on the rows before a cut, applied to those rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.features.fitted import FittedFeature, fit_columns

__all__ = ["fitted_on"]

Float64Array = npt.NDArray[np.float64]


def fitted_on(features: Sequence[FittedFeature], rows: pl.DataFrame) -> dict[str, Float64Array]:
    """Fitted features of `rows` when these rows are the training part.

    A model fits and applies them just so, in single precision; a row may then depend on every row of its
    training part (law 5), never on what comes after it.

    Parameters
    ----------
    features:
        Made from columns of `rows`.
    rows:
        Feature rows, null where a value is missing.

    Returns
    -------
    dict
        Values of shape (len(rows),) by name; NaN where the feature has no value, throughout where the
        column it is made from holds none.
    """
    found = {}
    for feature in features:
        values = rows[feature.of].to_numpy().astype(np.float32)
        if np.isnan(values).all():
            found[feature.name] = np.full(len(values), np.nan)
            continue
        (column,) = fit_columns((feature,), (feature.of,), values[:, None])
        found[feature.name] = column.apply(values)
    return found
