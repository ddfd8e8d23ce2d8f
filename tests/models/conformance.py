"""What every model family must do; `test_families.py` runs it for each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from marketray.errors import ModelError
from marketray.models import get_family, load_model
from marketray.models.base import Family, FittedModel, Task

COLUMNS = (
    *(f"return_1_lag_{k}" for k in range(6)),
    "return_30",
    "weighted_body_30",
    "realized_volatility_30",
    "noise",
)


def market(rows: int = 1200, seed: int = 0, task: Task = "regression") -> tuple[np.ndarray, np.ndarray]:
    """X (rows, 10) float32 in return-like units and a label of sd ~1e-3 that follows lag 0 and the body."""
    r = np.random.default_rng(seed)
    X = (r.standard_normal((rows, len(COLUMNS))) * 1e-3).astype(np.float32)
    y = 0.4 * X[:, 0].astype(float) + 0.8 * X[:, 7] + r.standard_normal(rows) * 5e-4
    return X, (y > 0).astype(float) if task == "direction" else y


class FamilyConformance:
    """Inherit, give `family_name` and cheap `params`, and pass."""

    family_name: str
    params: ClassVar[dict[str, object]]
    skill = True  # learns the planted effect

    @property
    def family(self) -> Family:
        return get_family(self.family_name)

    def select(self, X: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(X[:, [COLUMNS.index(c) for c in self.family.columns(COLUMNS)]])

    def fitted(self, task: Task = "regression", seed: int = 0) -> tuple[FittedModel, np.ndarray, np.ndarray]:
        X, y = market(task=task)
        columns = self.family.columns(COLUMNS)
        model = self.family.fit(self.params, columns, self.select(X), y, task=task, seed=seed)
        X_new, y_new = market(800, seed=1, task=task)
        return model, self.select(X_new), y_new

    def tasks(self) -> tuple[Task, ...]:
        return self.family.tasks

    def test_learns_the_planted_effect_in_label_units(self) -> None:
        model, X, y = self.fitted()
        skill = 1 - np.mean((y - model.predict(X)) ** 2) / np.mean(y**2)
        assert skill > 0.35 if self.skill else skill <= 0.01
        assert model.predict(X).dtype == np.float64
        assert model.predict(X).shape == (800,)

    def test_direction_predicts_probabilities(self) -> None:
        if "direction" not in self.tasks():
            X, y = market(task="direction")
            with pytest.raises(ModelError, match="task='direction'; required: one of"):
                self.family.fit(
                    self.params, self.family.columns(COLUMNS), self.select(X), y, task="direction"
                )
            return
        model, X, y = self.fitted("direction")
        p = model.predict(X)
        assert ((p >= 0) & (p <= 1)).all()
        assert np.mean((p > 0.5) == y) > 0.7 if self.skill else abs(p.mean() - y.mean()) < 0.1

    def test_same_seed_same_model(self) -> None:
        a, X, _ = self.fitted(seed=3)
        b, _, _ = self.fitted(seed=3)
        np.testing.assert_array_equal(a.predict(X), b.predict(X))

    def test_rows_do_not_influence_each_other(self) -> None:
        model, X, _ = self.fitted()
        one_by_one = np.concatenate([model.predict(X[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(one_by_one, model.predict(X)[:20], rtol=1e-6, atol=1e-12)

    def test_saved_and_loaded_predicts_the_same(self, tmp_path: Path) -> None:
        for task in self.tasks():
            model, X, _ = self.fitted(task)
            folder = tmp_path / task
            model.save(folder)
            again = load_model(folder)
            np.testing.assert_array_equal(again.predict(X), model.predict(X))
            assert (again.family, again.task, again.columns) == (self.family_name, task, model.columns)
            assert (again.params, again.rounds) == (model.params, model.rounds)
            assert json.loads((folder / "model.json").read_text())["family"] == self.family_name
            assert not list(folder.glob("*.pkl"))
            assert all(b"\x80\x04\x95" not in p.read_bytes()[:3] for p in folder.iterdir())

    def test_contributions_sum_to_the_raw_prediction(self) -> None:
        for task in self.tasks():
            model, X, _ = self.fitted(task)
            parts = model.contributions(X)
            assert parts.shape == (len(X), len(model.learned) + 1)
            total = parts.sum(axis=1)
            if task == "direction":
                total = 1 / (1 + np.exp(-total))
            np.testing.assert_allclose(total, model.predict(X), rtol=1e-4, atol=2e-7)

    def test_importance_is_a_share(self) -> None:
        model, _, _ = self.fitted()
        importance = model.importance()
        assert tuple(importance) == model.learned
        total = sum(importance.values())
        assert total == pytest.approx(1.0) or total == 0.0
        if self.skill and "weighted_body_30" in importance and "noise" in importance:
            assert importance["weighted_body_30"] > importance["noise"]

    def test_predictions_scale_with_the_label(self) -> None:
        X, y = market()
        columns = self.family.columns(COLUMNS)
        small = self.family.fit(self.params, columns, self.select(X), y).predict(self.select(X))
        large = self.family.fit(self.params, columns, self.select(X), 1000 * y).predict(self.select(X))
        if self.family_name != "last_return":
            np.testing.assert_allclose(
                large, 1000 * small, rtol=1e-3, atol=1e-3 * np.abs(large).max() + 1e-15
            )

    def test_early_stopping_reports_every_step(self) -> None:
        X, y = market()
        X_new, y_new = market(400, seed=2)
        steps: list[tuple[int, float]] = []

        def note(rounds: int, score: float) -> bool:
            steps.append((rounds, score))
            return True

        model = self.family.fit(
            self.params,
            self.family.columns(COLUMNS),
            self.select(X),
            y,
            evaluation=(self.select(X_new), y_new),
            on_step=note,
        )
        best = min(score for _, score in steps)
        assert best == pytest.approx(
            np.sqrt(np.mean((y_new - model.predict(self.select(X_new))) ** 2)), rel=1e-5
        )
        assert model.rounds == next(rounds for rounds, score in steps if score == best)

    def test_early_stopping_ends_when_told(self) -> None:
        X, y = market()
        calls: list[int] = []

        def stop(rounds: int, _: float) -> bool:
            calls.append(rounds)
            return False

        evaluation = (self.select(X), y)
        columns = self.family.columns(COLUMNS)
        self.family.fit(self.params, columns, self.select(X), y, evaluation=evaluation, on_step=stop)
        assert len(calls) == 1

    def test_prepared_rows_serve_several_fits(self) -> None:
        X, y = market()
        columns = self.family.columns(COLUMNS)
        prepared = self.family.prepare(self.params, columns, self.select(X), y)
        for _ in range(2):
            training = self.family.start(prepared, self.params, seed=0)
            training.advance(training.max_rounds)
            shared = training.model(training.rounds).predict(self.select(X))
        alone = self.family.fit(self.params, columns, self.select(X), y, seed=0).predict(self.select(X))
        np.testing.assert_array_equal(shared, alone)

    def test_wrong_columns_are_refused(self) -> None:
        model, X, _ = self.fitted()
        with pytest.raises(ModelError, match=r"X has shape \(800, \d+\); required"):
            model.predict(np.column_stack([X, X[:, :1] if X.shape[1] else np.zeros(800)]))
        with pytest.raises(ModelError, match="X has shape"):
            model.contributions(np.zeros(3, np.float32))

    def test_infinite_values_are_refused(self) -> None:
        model, X, y = self.fitted()
        if X.shape[1] == 0:
            return
        X = X.copy()
        X[3, 0] = np.inf
        with pytest.raises(ModelError, match="X holds 1 infinite values"):
            model.predict(X)
        with pytest.raises(ModelError, match="X holds infinite values"):
            self.family.fit(self.params, model.columns, X, y)

    def test_unusable_rows_and_parameters_are_refused(self) -> None:
        X, y = market()
        columns, X = self.family.columns(COLUMNS), self.select(X)
        with pytest.raises(ModelError, match="unknown parameters \\['nonsense'\\]"):
            self.family.fit({"nonsense": 1}, columns, X, y)
        with pytest.raises(ModelError, match="y has 1200 rows, 1 of them not finite"):
            self.family.fit(self.params, columns, X, np.r_[np.nan, y[1:]])
        with pytest.raises(ModelError, match="required: X"):
            self.family.fit(self.params, columns, X[:-1], y)
        if "direction" in self.tasks():
            with pytest.raises(ModelError, match="values other than 0 and 1"):
                self.family.fit(self.params, columns, X, y, task="direction")

    def test_a_damaged_folder_is_refused(self, tmp_path: Path) -> None:
        model, _, _ = self.fitted()
        model.save(tmp_path / "m")
        if model.artefact is not None:
            path = tmp_path / "m" / model.artefact
            path.write_bytes(path.read_bytes()[:40])
            with pytest.raises(ModelError, match="not "):
                load_model(tmp_path / "m")
        document = json.loads((tmp_path / "m" / "model.json").read_text())
        (tmp_path / "m" / "model.json").write_text(json.dumps({**document, "format": 99}))
        with pytest.raises(ModelError, match="format=99; required: 1"):
            load_model(tmp_path / "m")
        (tmp_path / "m" / "model.json").write_text("{")
        with pytest.raises(ModelError, match="not a readable model description"):
            load_model(tmp_path / "m")
