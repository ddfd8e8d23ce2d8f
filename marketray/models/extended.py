"""A model with fitted columns: it takes stored columns and appends its own by the parameters it keeps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marketray.errors import ModelError
from marketray.features.fitted import Extension, FittedColumn, FittedFeature, fit_columns
from marketray.models.base import Family, FittedModel, Float32Array, Float64Array, Params, Task
from marketray.models.contribution import ALL, rank_columns, split_group

__all__ = ["ExtendedModel", "Layout", "fit_extended"]


@dataclass(frozen=True)
class Layout:
    """The columns of a family's models.

    Attributes
    ----------
    raw:
        Stored columns it learns from.
    fitted:
        Fitted features it learns from, after them.
    """

    raw: tuple[str, ...]
    fitted: tuple[FittedFeature, ...]

    @classmethod
    def of(cls, family: Family, available: Collection[str], fitted: Sequence[FittedFeature]) -> Layout:
        """What `family` takes from the stored columns and the fitted features there are."""
        return cls(family.columns(available), tuple(fitted) if family.takes_fitted else ())

    @property
    def learned(self) -> tuple[str, ...]:
        """All columns the family learns from."""
        return (*self.raw, *(f.name for f in self.fitted))

    def only(self, columns: Collection[str]) -> Layout:
        """What is left of it with these learned columns alone."""
        return Layout(
            tuple(name for name in self.raw if name in columns),
            tuple(feature for feature in self.fitted if feature.name in columns),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Stored columns a prediction needs: `raw`, and what only fitted features are made from."""
        return tuple(dict.fromkeys((*self.raw, *(f.of for f in self.fitted))))


class ExtendedModel(FittedModel):
    """A model behind fitted columns.

    Parameters
    ----------
    model:
        Fitted on stored columns followed by the fitted ones.
    inputs:
        Names of the stored columns of every X given to this model, in order.
    fitted:
        The fitted columns with their parameters.
    """

    def __init__(self, model: FittedModel, inputs: tuple[str, ...], fitted: tuple[FittedColumn, ...]) -> None:
        super().__init__(model.task, inputs, model.params, model.rounds)
        self.family = model.family  # type: ignore[misc]  # one class stands before every family
        self.artefact = model.artefact  # type: ignore[misc]
        self.model = model
        self.fitted = fitted
        self._extension = Extension(inputs, model.columns[: len(model.columns) - len(fitted)], fitted)

    @property
    def learned(self) -> tuple[str, ...]:
        """The model's stored columns and the fitted ones."""
        return self.model.columns

    def _predict(self, X: Float32Array) -> Float64Array:
        return self.model._predict(self._extension(X))

    def _contributions(self, X: Float32Array) -> Float64Array:
        return self.model._contributions(self._extension(X))

    def importance(self) -> dict[str, float]:
        """Share of every column of `learned`."""
        return self.model.importance()

    def _save_artefact(self, folder: Path) -> None:
        self.model._save_artefact(folder)

    def _document(self) -> dict[str, Any]:
        return {
            **self.model._document(),
            "learned": list(self.learned),
            "fitted": [column.to_json() for column in self.fitted],
        }

    @classmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> ExtendedModel:
        """Read the model behind it, and the fitted columns from ``model.json``."""
        from marketray.models import model_class

        behind = {**document, "columns": document["learned"]}
        model = model_class(document["family"]).load(folder, behind)
        fitted = tuple(FittedColumn.from_json(value) for value in document["fitted"])
        return cls(model, tuple(document["columns"]), fitted)


def fit_extended(
    family: Family,
    params: Params,
    columns: tuple[str, ...],
    values: Float32Array,
    y: Float64Array,
    fitted: Sequence[FittedFeature],
    *,
    task: Task = "regression",
    threads: int = 1,
    seed: int = 0,
) -> FittedModel:
    """Fit the features' parameters on all rows given, then the family on the extended rows.

    Where `params` choose a group of columns by contribution, the ranking is made anew on these rows, and
    the model takes the group's columns only.

    Parameters
    ----------
    params:
        The family's, and a `marketray.models.contribution.GroupChoice` as JSON, or ``all``, under
        ``feature_group``.
    columns, values:
        Stored columns and training rows (n, p); the family chooses among them.
    fitted:
        Fitted features there are.

    Raises
    ------
    ModelError
        A feature cannot be fitted on these rows, the family refuses them, or a group is named without the
        model that ranks.
    """
    own, group, choice = split_group(params)
    if choice is None and group != ALL:
        msg = f"feature_group={group!r} and no ranking model; required: name, params and rounds, or {ALL!r}"
        raise ModelError(msg, hint="give GroupChoice(...).to_json() of the tuning's first stage")
    layout = Layout.of(family, columns, fitted)
    made = fit_columns(layout.fitted, columns, values)
    X = Extension(columns, layout.raw, made)(values)
    if choice is not None:
        names = layout.learned
        ranking = rank_columns(
            family, choice.params, choice.rounds, names, X, y, task=task, threads=threads, seed=seed
        )
        members = ranking.columns(group)
        X = np.ascontiguousarray(X[:, [name in members for name in names]])
        layout = layout.only(members)
        made = tuple(column for column in made if column.name in members)
    model = family.fit(own, layout.learned, X, y, task=task, threads=threads, seed=seed)
    return ExtendedModel(model, layout.inputs, made) if made else model
