"""``marketray run`` on simulated bars: evidence out, nothing repeated the second time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_the_summary_names_the_evidence_the_report_and_the_seconds(shell: Shell, first_run: Any) -> None:
    selection = first_run["selection"]
    assert selection["verdict"] in {"promoted", "bootstrap"}
    assert selection["selected_model"] in {"xgboost", "lightgbm", "ar"}
    assert list(first_run["stage_seconds"]) == sorted(
        ["ingest", "sentiment", "features", "dataset", "tune", "select"]
    )
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


def test_a_second_run_writes_no_partition_trains_nothing_and_registers_nothing(
    shell: Shell, first_run: Any
) -> None:
    before = {name: files(shell.home / name) for name in ("lake", "runs")}
    second = shell.json("run")
    assert {name: files(shell.home / name) for name in ("lake", "runs")} == before
    assert second["selection"] == first_run["selection"]
    for stage in ("ingest", "features", "dataset"):
        assert first_run["stages"][stage]["written"] > 0
        assert second["stages"][stage]["written"] == 0
    assert [m["version"] for m in shell.json("models", "list")] == [1]


def test_models_are_listed_from_any_folder(shell: Shell, first_run: Any) -> None:
    listed = shell.json("models", "list")
    assert listed[0]["aliases"] == ["champion"]
    shown = shell.json("models", "show", "champion")
    assert shown["version"] == 1
    printed = shell.marketray("models", "list", "--config", str(shell.config))
    assert "champion" in printed
    assert listed[0]["family"] in printed


def test_requiring_a_promotion_exits_3_when_there_is_none(shell: Shell, first_run: Any) -> None:
    expected = 0 if first_run["selection"]["verdict"] == "promoted" else 3
    shell.marketray("select", "--config", str(shell.config), "--require-promotion", code=expected)
