"""Law 6, vault: tuning and selection give the same bytes whatever the vault holds, and without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from marketray.dataset.load import VAULT
from marketray.lake import Lake
from marketray.settings import Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars
from tests.laws.test_law_06_vault import replace_by_noise

CLOCK_FIELDS = {"seconds", "started_at", "ended_at"}


def settings_at(home: Path) -> Settings:
    tuning = {
        "families": ("ar", "lightgbm"),
        "stage1_trials": 2,
        "stage2_trials": 1,
        "max_rounds": 40,
        "ar_max_lags": 5,
    }
    base = small_settings(home)
    return base.model_copy(update={"tuning": base.tuning.model_copy(update=tuning)})


def tuned_and_ranked(settings: Settings, *, without_vault: bool) -> dict[str, Any]:
    """Every file that tuning and selection wrote: name -> content, clock times left out of the records."""
    from marketray.evaluation.ranking_stage import rank_candidates
    from marketray.tuning.stage import run_tune

    run_tune(settings)
    if without_vault:
        Lake(settings.lake_uri).delete(VAULT)
    rank_candidates(settings)
    files: dict[str, Any] = {}
    for path in sorted(settings.run_path.rglob("*")):
        name = str(path.relative_to(settings.run_path))
        if not path.is_file() or path.name in ("tuning.json", "result.json"):  # summaries of the records
            continue
        if path.name.startswith(("trial_", "contributions")) and path.suffix == ".json":
            record = json.loads(path.read_text())
            files[name] = {k: v for k, v in record.items() if k not in CLOCK_FIELDS}
        else:
            files[name] = path.read_bytes()
    return files


def test_noise_in_the_vault_and_its_loss_change_neither_tuning_nor_selection(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marketray.dataset.stage import run_dataset

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    one, two = settings_at(tmp_path / "one"), settings_at(tmp_path / "two")
    write_inputs(one, xnys_bars())
    run_dataset(one)
    shutil.copytree(one.home_path, two.home_path)
    replace_by_noise(Lake(two.lake_uri))
    expected = tuned_and_ranked(one, without_vault=False)
    assert {Path(name).name for name in expected} >= {"ranking.json", "trial_0000.json", "model.txt"}
    assert any(name.endswith(".parquet") for name in expected)
    assert tuned_and_ranked(two, without_vault=True) == expected
