"""AR: direct linear regression of the h-minute return on one-minute returns.

y_{t,h} = c + Σ_{k=0}^{p−1} β_k r_{t−k} + γ'x_t + ε, by least squares (statsmodels), or by ridge on
standardised columns. "Direct": the h-minute label itself is regressed, instead of iterating a one-step
forecast (Marcellino, Stock and Watson 2006).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from marketray.errors import ModelError
from marketray.models.base import (
    Device,
    Evaluation,
    Family,
    FittedModel,
    Float32Array,
    Float64Array,
    Params,
    Task,
)
from marketray.models.columns import lag_columns, shares
from marketray.models.training import Prepared, Training, target_scale

__all__ = [
    "EXOGENOUS",
    "NEWS_SET",
    "Autoregression",
    "AutoregressionModel",
    "exogenous_columns",
    "exogenous_sets",
    "join_sets",
    "split_sets",
]

NEWS_SET = "news"
EXOGENOUS: dict[str, tuple[str, ...]] = {
    "volatility": ("realized_volatility", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang"),
    "order_flow": ("order_flow", "weighted_body"),
    NEWS_SET: ("news_impulse_", "news_avg_sentiment_"),
}
"""Sets of exogenous columns, each by the beginnings of the columns' names. Of the news, the fading sums in
units of volatility and the plain means: a price that answers each article in proportion to its tone is
linear in these."""

_TUNED = ("none", "volatility", "order_flow", "news", "order_flow+news")
_OF_NEWS = "news_"  # columns of this beginning are 0 where they are missing


def split_sets(name: str) -> tuple[str, ...]:
    """The sets in a value of `exogenous`: ``none`` has none, ``order_flow+news`` two.

    Raises
    ------
    ModelError
        There is no such set, or one stands twice.
    """
    parts = () if name == "none" else tuple(name.split("+"))
    if not set(parts) <= set(EXOGENOUS) or len(set(parts)) < len(parts):
        msg = f"ar: exogenous={name!r}; required: none, or one or more of {sorted(EXOGENOUS)} joined by '+'"
        raise ModelError(msg)
    return parts


def join_sets(parts: Iterable[str]) -> str:
    """The value of `exogenous` for these sets; the reverse of `split_sets`."""
    return "+".join(parts) or "none"


def exogenous_columns(name: str, available: Collection[str]) -> tuple[str, ...]:
    """Columns that there are of the exogenous sets in `name`, in the order of `available`.

    Raises
    ------
    ModelError
        As for `split_sets`.
    """
    beginnings = tuple(b for part in split_sets(name) for b in EXOGENOUS[part])
    return tuple(c for c in available if c.startswith(beginnings))


def exogenous_sets(available: Collection[str]) -> tuple[str, ...]:
    """Values of `exogenous` to tune over: those whose every set has columns."""
    return tuple(
        name for name in _TUNED if all(exogenous_columns(part, available) for part in split_sets(name))
    )


class AutoregressionModel(FittedModel):
    """Coefficients on standardised columns; label / `target_scale` = intercept + z·coefficients.

    A missing exogenous value counts as its training mean (stored here), and of the news as 0: there was none
    to move the price, whatever the tone of news in general. A missing lag is refused.
    """

    family = "ar"
    artefact = "coefficients.json"

    def __init__(
        self, columns: tuple[str, ...], params: Params, terms: dict[str, list[float]], intercept: float
    ) -> None:
        super().__init__("regression", columns, params, 1)
        self.terms = terms  # column: [mean, standard deviation, coefficient in label units]
        self.intercept = intercept
        self._index = np.array([columns.index(c) for c in terms], np.intp)
        table: Float64Array = np.array(list(terms.values()), np.float64).reshape(-1, 3)
        self._mean: Float64Array = table[:, 0]
        self._scale: Float64Array = table[:, 1]
        self._coefficient: Float64Array = table[:, 2]

    def _parts(self, X: Float32Array) -> Float64Array:
        names = tuple(self.terms)
        used = _filled(_silence_as_zero(X[:, self._index].astype(np.float64), names), names, self._mean)
        parts: Float64Array = np.multiply((used - self._mean) / self._scale, self._coefficient)
        return parts

    def _predict(self, X: Float32Array) -> Float64Array:
        return np.asarray(self._parts(X).sum(axis=1) + self.intercept, np.float64)

    def _contributions(self, X: Float32Array) -> Float64Array:
        out = np.zeros((len(X), len(self.columns) + 1))
        out[:, self._index] = self._parts(X)
        out[:, -1] = self.intercept
        return out

    def importance(self) -> dict[str, float]:
        """Share of |coefficient| on standardised columns."""
        weights = np.zeros(len(self.columns))
        weights[self._index] = np.abs(self._coefficient)
        return shares(self.columns, weights.tolist())

    def _save_artefact(self, folder: Path) -> None:
        document = {"intercept": self.intercept, "terms": self.terms}
        (folder / self.artefact).write_text(json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, document: dict[str, Any]) -> AutoregressionModel:
        """Read ``coefficients.json``."""
        path = folder / cls.artefact
        try:
            stored = json.loads(path.read_text())
            columns = tuple(document["columns"])
            return cls(columns, document["params"], stored["terms"], float(stored["intercept"]))
        except (OSError, ValueError, KeyError) as e:
            msg = f"{path}: not readable as the coefficients of an autoregression ({e})"
            raise ModelError(msg, hint="download or train the model again") from e


class AutoregressionTraining(Training):
    """One least-squares fit: a single round."""

    def __init__(self, prepared: Prepared, params: dict[str, Any]) -> None:
        self._prepared, self._params = prepared, params
        lags = lag_columns(prepared.columns)
        if not 1 <= int(params["lags"]) <= len(lags):
            msg = f"ar: lags={params['lags']}; required: 1 to {len(lags)}, the lags among the columns"
            raise ModelError(msg)
        self._used = lags[: int(params["lags"])] + exogenous_columns(params["exogenous"], prepared.columns)
        self._model: AutoregressionModel | None = None

    def advance(self, rounds: int) -> None:
        """Solve the least-squares problem."""
        del rounds
        import statsmodels.api as sm
        from statsmodels.tools.sm_exceptions import SingularMatrixWarning

        X, y = self._prepared.train
        index = [self._prepared.columns.index(c) for c in self._used]
        used = _silence_as_zero(X[:, index].astype(np.float64), self._used)
        mean = np.array([_mean(column) for column in used.T])
        used = _filled(used, self._used, mean)
        scale = used.std(axis=0)
        scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1e-12)] = 1.0  # constant: z is 0
        design = np.column_stack([np.ones(len(y)), (used - mean) / scale])
        ridge = float(self._params["ridge"])
        ols = sm.OLS(y, design)
        if ridge == 0:
            with warnings.catch_warnings():  # collinear columns: the minimum-norm solution is meant
                warnings.simplefilter("ignore", SingularMatrixWarning)
                beta = ols.fit().params
        else:  # statsmodels minimises RSS / 2n + Σ alpha_j β_j² / 2; the intercept is free
            beta = ols.fit_regularized(alpha=np.r_[0.0, np.full(len(self._used), ridge)], L1_wt=0.0).params
        beta = np.asarray(beta, np.float64) * self._prepared.target_scale
        terms = {
            c: [float(m), float(s), float(b)]
            for c, m, s, b in zip(self._used, mean, scale, beta[1:], strict=True)
        }
        self._model = AutoregressionModel(self._prepared.columns, self._params, terms, float(beta[0]))
        self.rounds = 1

    def predictions(self) -> Float64Array:
        """Predictions for the evaluation rows."""
        return self.model(1).predict(self._prepared.evaluation)

    def model(self, rounds: int) -> AutoregressionModel:
        """The fitted model."""
        if self._model is None:
            msg = f"ar: model({rounds}) was asked for before the fit; required: advance() first"
            raise ModelError(msg)
        return self._model


class Autoregression(Family):
    """Direct linear autoregression with exogenous columns and an optional ridge penalty."""

    name = "ar"
    tasks = ("regression",)
    defaults: ClassVar[dict[str, Any]] = {"lags": 2, "exogenous": "none", "ridge": 0.0}

    def columns(self, available: Collection[str]) -> tuple[str, ...]:
        """The one-minute return lags and all exogenous candidates."""
        candidates = [c for name in EXOGENOUS for c in exogenous_columns(name, available)]
        return lag_columns(available) + tuple(candidates)

    def prepare(
        self,
        params: Params,
        columns: tuple[str, ...],
        X: Float32Array,
        y: Float64Array,
        *,
        task: Task = "regression",
        threads: int = 1,
        evaluation: Evaluation | None = None,
    ) -> Prepared:
        """Scale the label; columns are standardised per fit, on the training rows alone."""
        del threads
        self.filled(params)
        self.check(task, columns, X, y)
        if not lag_columns(columns):
            msg = "ar: the columns hold no return_1_lag_0; required: the one-minute return lags"
            raise ModelError(msg, hint="keep the feature group `lags`")
        if evaluation is not None:
            self.check(task, columns, *evaluation)
        scale = target_scale(y, task)
        held_out = evaluation[0] if evaluation is not None else None
        return Prepared(columns, task, scale, float(np.mean(y / scale)), (X, y / scale), held_out)

    def start(
        self, prepared: Prepared, params: Params, *, threads: int = 1, seed: int = 0, device: Device = "cpu"
    ) -> Training:
        """Begin the fit; the result does not depend on `threads`, `seed` or `device`."""
        del threads, seed, device
        return AutoregressionTraining(prepared, self.filled(params))


def _mean(column: Float64Array) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else 0.0


def _silence_as_zero(X: Float64Array, names: tuple[str, ...]) -> Float64Array:
    """Missing values of the news as 0: an empty window has no tone."""
    news = np.array([name.startswith(_OF_NEWS) for name in names], dtype=np.bool_)
    return np.where(news & np.isnan(X), 0.0, X)


def _filled(X: Float64Array, names: tuple[str, ...], mean: Float64Array) -> Float64Array:
    """Missing exogenous values as their training mean; a missing lag is refused."""
    missing = np.isnan(X)
    if not missing.any():
        return X
    lags = set(lag_columns(names))
    broken = [c for j, c in enumerate(names) if c in lags and missing[:, j].any()]
    if broken:
        msg = f"ar: {broken} hold NaN; required: every lag in use of every row has a value"
        raise ModelError(msg, hint="leave out rows until the lags have warmed up")
    return np.where(missing, mean, X)
