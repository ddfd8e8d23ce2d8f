"""``marketray run`` on simulated bars: evidence, a report and a registered model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, in_process

pytestmark = pytest.mark.timeout(900)  # the first to ask for the run waits for all of it


def test_the_summary_names_the_evidence_the_report_and_the_seconds(shell: Shell, first_run: Any) -> None:
    selection = first_run["selection"]
    assert selection["verdict"] in {"promoted", "bootstrap"}
    assert selection["selected_model"] in {"xgboost", "lightgbm", "ar"}
    assert list(first_run["stage_seconds"]) == sorted(
        ["ingest", "sentiment", "features", "dataset", "tune", "select"]
    )
    assert first_run["stages"]["ingest"]["rows_out"] > 0.9 * 14_000
    report = Path(first_run["report"]).read_text()
    assert report.startswith("<!doctype html>")
    assert selection["verdict"] in report


def test_selection_json_has_the_contracts_keys_and_units(shell: Shell, first_run: Any) -> None:
    selection = json.loads((shell.home / "runs/small/selection.json").read_text())
    for key in ("selected_model", "selected_model_name", "model_path", "verdict", "r2_oos", "hit_rate"):
        assert key in selection
    for split in ("test", "oot"):
        rmse, mae = selection[f"{split}_rmse_pct"], selection[f"{split}_mae_pct"]
        assert 0 < mae < rmse < 5  # percent: a 30-minute return of an index, not a fraction of it
        assert set(selection["r2_oos"][split]) == {"zero", "training_mean", "last_return"}
        # R² = 1 − MSE/MSE₀, so the zero forecast's RMSE follows from the model's
        zero = rmse / (1 - selection["r2_oos"][split]["zero"]) ** 0.5
        report = json.loads((shell.home / "runs/small/report.json").read_text())
        row = next(r for r in report["comparison"] if r["model"] == "zero")
        assert abs(zero - row["rmse_pct"][split]) < 1e-6
    assert Path(selection["model_path"]).is_dir()


def test_models_are_listed_and_shown(
    shell: Shell, first_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKETRAY_HOME", str(shell.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = ["--config", str(shell.config)]
    assert in_process(monkeypatch, "models", "list", *config, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["aliases"] == ["champion"]
    assert in_process(monkeypatch, "models", "show", "champion", *config, "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert in_process(monkeypatch, "models", "list", *config) == 0
    printed = capsys.readouterr().out
    assert "champion" in printed
    assert listed["family"] in printed


def test_selecting_again_exits_3_where_a_promotion_is_required_and_there_is_none(
    ray_local: None, shell: Shell, first_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETRAY_HOME", str(shell.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    expected = 0 if first_run["selection"]["verdict"] == "promoted" else 3
    options = ["--config", str(shell.config), "--require-promotion"]
    assert in_process(monkeypatch, "select", *options) == expected
