"""The registry: whole versions, one champion, safe formats, quick failures."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketray.errors import ModelError, RegistryError
from marketray.features.fits import PercentileRank
from marketray.features.fitted import FittedFeature
from marketray.models import get_family, load_model
from marketray.models.extended import fit_extended
from marketray.registry import Registry
from marketray.settings import Settings, load_settings
from marketray.tracking import (
    close_parent_run,
    connect_tracking,
    experiment_id,
    log_trials,
    mask_uri,
    open_parent_run,
)
from tests.mortal_client import Killed, MortalClient, champion_of, native_aliases

EVIDENCE = {"verdict": "bootstrap", "r2_oos": -0.0003, "p_value": 0.41, "k": 1, "alpha": 0.025}
RNG = np.random.default_rng(5)
X = RNG.normal(size=(400, 3)).astype(np.float32)
Y = 1e-3 * (X[:, 0] - 0.5 * X[:, 1]) + RNG.normal(scale=1e-3, size=400)
COLUMNS = ("a", "b", "c")


@pytest.fixture
def settings(settings_of_store: Settings) -> Settings:
    return settings_of_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "xgboost"
    fitted = (FittedFeature("a_rank", "g", "a", PercentileRank(), "fraction"),)
    fit_extended(get_family("xgboost"), {"n_estimators": 20}, COLUMNS, X, Y, fitted).save(path)
    (path / "serving.json").write_text(json.dumps({"evidence": EVIDENCE}))
    return path


def test_pyfunc_and_downloaded_copy_predict_like_the_native_model(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    registry = Registry(settings)
    made = registry.register(folder, key="k1", evidence=EVIDENCE, tags={"marketray.data_hash": "d"})
    registry.set_alias("champion", made.version, {"verdict": "bootstrap"})

    expected = load_model(folder).predict(X)
    native = registry.download(made.version)
    assert native == settings.home_path / "models" / settings.model_name / "1"
    np.testing.assert_array_equal(load_model(native).predict(X), expected)
    assert json.loads((native / "serving.json").read_text())["evidence"] == EVIDENCE

    import mlflow.pyfunc
    import pandas as pd

    stored = Path(connect_tracking(settings).download_artifacts(made.run_id, "model", str(tmp_path)))
    pyfunc = mlflow.pyfunc.load_model(str(stored))
    frame = pd.DataFrame(X, columns=list(COLUMNS))[["c", "a", "b"]]
    np.testing.assert_array_equal(pyfunc.predict(frame), expected)
    assert [c.name for c in pyfunc.metadata.signature.inputs] == list(COLUMNS)
    assert not [p for p in stored.rglob("*") if p.suffix in (".pkl", ".pickle", ".cloudpickle")]

    again = registry.register(folder, key="k1", evidence=EVIDENCE)
    assert (again.version, again.aliases, again.family) == (1, ("champion",), "xgboost")
    assert (again.evidence, again.verdict, again.tags["marketray.data_hash"]) == (EVIDENCE, "bootstrap", "d")
    assert len(registry.list()) == 1
    assert registry.download(1) == native


def test_a_registration_killed_at_any_write_leaves_one_champion(
    tracked_home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings()
    monkeypatch.setattr(
        "marketray.registry.save_pyfunc", lambda path, native, _: shutil.copytree(native, path)
    )

    def replace(key: str) -> Registry:
        registry = Registry(settings)
        made = registry.register(folder, key=key, evidence=EVIDENCE)
        registry.set_alias("champion", made.version)
        return registry

    replace("1")
    for last in range(1, 100):
        key = str(last + 1)
        client = MortalClient(connect_tracking(settings), last)
        with monkeypatch.context() as patch:
            patch.setattr("marketray.registry.connect_tracking", lambda _, mortal=client: mortal)
            try:
                replace(key)
            except Killed:
                pass
            else:
                break
        assert native_aliases(settings)["champion"] in (last, last + 1)
        assert Registry(settings).history()[-1]["version"] == champion_of(settings)
        registry = replace(key)
        assert (champion_of(settings), native_aliases(settings)["champion"]) == (last + 1, last + 1)
        assert len(registry.list()) == last + 1
    assert client.writes == last - 1 > 6  # none was left out
    moves = [(n["previous"], n["version"]) for n in Registry(settings).history()]
    assert moves == [(n - 1 or None, n) for n in range(1, last + 2)]


def test_resolve_by_number_and_alias_and_refuse_the_unknown(settings: Settings, folder: Path) -> None:
    registry = Registry(settings)
    assert registry.list() == []
    assert registry.champion() is None
    assert registry.name not in registry.names()
    with pytest.raises(
        RegistryError, match="no version or alias 'champion'.*required: one that is"
    ) as caught:
        registry.resolve("champion")
    assert str(caught.value.hint).startswith(
        ("nothing is registered yet: `marketray run`", "there are models")
    )
    made = registry.register(folder, key="k", evidence={**EVIDENCE, "verdict": "challenger"})
    registry.set_alias("challenger", made.version)
    assert registry.resolve("challenger") == registry.resolve(1) == registry.resolve("1")
    with pytest.raises(RegistryError, match="no version or alias 7") as caught:
        registry.download(7)
    assert caught.value.hint == "there are versions 1; aliases challenger (version 1)"
    other = Registry(settings, "another")
    assert (other.name, other.list(), registry.name in registry.names()) == ("another", [], True)
    with pytest.raises(RegistryError, match="another: no version or alias 1") as caught:
        other.resolve(1)
    assert "; name the settings of one with --config FILE" in str(caught.value.hint)
    with pytest.raises(ModelError, match=r"not a readable model folder.*required: model.json"):
        registry.register(folder.parent, key="other", evidence=EVIDENCE)


def test_a_copy_of_another_server_s_version_is_replaced(settings: Settings, folder: Path) -> None:
    registry = Registry(settings)
    registry.register(folder, key="k", evidence=EVIDENCE)
    native = registry.download(1)
    (native / ".registry.json").write_text(json.dumps({"run_id": "another"}))
    (native / "model.json").write_text("{}")
    assert load_model(registry.download(1)).family == "xgboost"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9/",
        "http://[",
        "postgresql://user:secret@127.0.0.1:9/db",
        "sqlite:////proc/nowhere/mlflow.db",
        "sqlite://",
    ],
)
def test_an_unreachable_server_fails_within_seconds(home: Path, uri: str) -> None:
    start = time.monotonic()
    with pytest.raises(RegistryError, match=r"tracking\.uri=.* cannot be reached") as caught:
        Registry(load_settings(overrides={"tracking": {"uri": uri}}))
    assert time.monotonic() - start < 10
    assert "secret" not in str(caught.value)
    assert caught.value.hint is not None


def test_a_home_that_cannot_be_made_is_no_server_to_start(home: Path) -> None:
    (home / "file").write_text("")
    settings = load_settings(None, {"tracking": {"uri": f"sqlite:///{home}/file/mlflow.db"}})
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        connect_tracking(settings)
    assert caught.value.hint is not None
    assert "MARKETRAY_HOME" in caught.value.hint


def test_a_database_without_its_driver_is_one_clear_error(home: Path) -> None:
    settings = load_settings(overrides={"tracking": {"uri": "mysql:///db"}})
    with pytest.raises(RegistryError, match=r"failed at tracking\.uri=mysql.*No module named") as caught:
        Registry(settings).list()
    assert caught.value.hint is not None
    assert "marketray[postgres]" in caught.value.hint


def test_a_store_that_mlflow_refuses_is_one_clear_error(home: Path) -> None:
    settings = load_settings(overrides={"tracking": {"uri": f"file:{home}/mlruns"}})
    with pytest.raises(RegistryError, match=r"failed at tracking\.uri=file:"):
        Registry(settings).list()


def test_a_full_disk_is_named_as_such(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import marketray.registry as module

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_pyfunc", full)
    with pytest.raises(RegistryError, match="registering .* failed .*No space left on device") as caught:
        Registry(settings).register(folder, key="k", evidence=EVIDENCE)
    assert caught.value.hint == "free disk space or fix the permissions, then run again"
    assert Registry(settings).list() == []


def test_passwords_are_masked() -> None:
    assert mask_uri("postgresql://me:s3cret@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert mask_uri("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"


def test_trials_hang_under_one_parent_and_are_written_once(settings: Settings) -> None:
    parent = open_parent_run(settings, "abc", {"data_hash": "d1", "catalog_hash": "c1"})
    assert open_parent_run(settings, "abc", {"data_hash": "d1", "extra": 1}) == parent
    records = [
        {
            "trial_id": f"t{i}",
            "family": "ar",
            "cv_rmse": 0.99,
            "params": {"p": i, "nested": {"x": 0.5}},
            "started_at": 1_700_000_000.5,
            "ended_at": 1_700_000_009.0,
        }
        for i in range(3)
    ]
    assert log_trials(settings, parent, records[:2]) == 2
    assert log_trials(settings, parent, [*records, records[0]]) == 1
    client = connect_tracking(settings)
    children = client.search_runs(
        [experiment_id(client, settings)], f"tags.`mlflow.parentRunId` = '{parent}'"
    )
    assert sorted(r.data.tags["marketray.trial_id"] for r in children) == ["t0", "t1", "t2"]
    one = next(r for r in children if r.data.tags["marketray.trial_id"] == "t2")
    assert one.data.params == {"p": "2", "nested.x": "0.5"}
    assert (one.data.metrics, one.data.tags["marketray.family"]) == ({"cv_rmse": 0.99}, "ar")
    assert (one.info.start_time, one.info.end_time) == (1_700_000_000_500, 1_700_000_009_000)
    close_parent_run(settings, parent, {"test_rmse_pct": 0.07, "missing": float("nan")})
    run = client.get_run(parent)
    assert run.data.params["data_hash"] == "d1"
    assert run.data.params["settings.labels.horizon_minutes"] == "30"
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"test_rmse_pct": 0.07})
    with pytest.raises(RegistryError, match="required: trial_id"):
        log_trials(settings, parent, [{"params": {}}])


def test_a_trial_cut_short_is_completed_and_not_doubled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import marketray.tracking as tracking

    parent = open_parent_run(settings, "abc", {})
    record = {"trial_id": "t", "cv_rmse": 1.0, "params": {"a": 1}}
    with monkeypatch.context() as patch:

        def stop(*args: Any) -> None:
            raise Killed

        patch.setattr(tracking, "_log_params", stop)
        with pytest.raises(Killed):
            log_trials(settings, parent, [record])
    assert log_trials(settings, parent, [record]) == 1
    client = connect_tracking(settings)
    children = client.search_runs(
        [experiment_id(client, settings)], f"tags.`mlflow.parentRunId` = '{parent}'"
    )
    assert [(r.info.status, r.data.params) for r in children] == [("FINISHED", {"a": "1"})]
    client.delete_experiment(experiment_id(client, settings))
    with pytest.raises(RegistryError, match="is deleted in MLflow"):
        open_parent_run(settings, "abc", {})
