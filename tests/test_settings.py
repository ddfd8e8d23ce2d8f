"""Settings: precedence, unknown keys, and what a wrong value says."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketray.errors import SettingsError
from marketray.settings import FileSource, SimulatorSource, load_settings
from marketray.settings_file import save_settings

GATE = Path(__file__).parents[1] / "configs" / "gate.yaml"  # rules of the gate, not settings of a run
CONFIGS = sorted(set((Path(__file__).parents[1] / "configs").glob("*.yaml")) - {GATE})


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_overrides_win_over_environment_over_file_over_defaults(home: Path, monkeypatch) -> None:
    path = write(home, "tuning: {stage1_trials: 11, stage2_trials: 12, seed: 13}")
    monkeypatch.setenv("MARKETRAY_TUNING__STAGE2_TRIALS", "22")
    monkeypatch.setenv("MARKETRAY_TUNING__SEED", "23")
    tuning = load_settings(path, {"tuning": {"seed": 33}}).tuning
    assert (tuning.stage1_trials, tuning.stage2_trials, tuning.seed, tuning.patience) == (11, 22, 33, 10)


def test_an_override_of_the_source_replaces_the_files_source(home: Path) -> None:
    path = write(home, "source: {kind: simulator, bars: 20000}")
    assert isinstance(load_settings(path).source, SimulatorSource)
    replaced = load_settings(path, {"source": {"kind": "files", "paths": ["/a.csv"]}})
    assert isinstance(replaced.source, FileSource)


def test_paths_resolve_against_home_never_the_working_directory(home: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    settings = load_settings(None, {"lake": "elsewhere"})
    assert settings.lake_uri == str(home / "elsewhere")
    assert settings.resolve("bars.csv") == home / "bars.csv"
    assert settings.resolve("/data/bars.csv") == Path("/data/bars.csv")
    assert load_settings(None, {"lake": "s3://bucket/lake"}).lake_uri == "s3://bucket/lake"


def test_tracking_uri_is_the_setting_then_the_environment_then_sqlite(home: Path, monkeypatch) -> None:
    assert load_settings().tracking_uri == f"sqlite:///{home}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert load_settings().tracking_uri == "http://tracking:5000"
    assert load_settings(None, {"tracking": {"uri": "http://mine"}}).tracking_uri == "http://mine"
    relative = load_settings(None, {"tracking": {"uri": "sqlite:///runs.db"}})
    assert relative.tracking_uri == f"sqlite:///{home}/runs.db"
    absolute = load_settings(None, {"tracking": {"uri": "sqlite:////data/runs.db"}})
    assert absolute.tracking_uri == "sqlite:////data/runs.db"


def test_store_uri_is_the_setting_then_sqlite_in_home(home: Path) -> None:
    def of(uri: str) -> str:
        return load_settings(None, {"serving": {"store_uri": uri}}).store_uri

    assert load_settings().store_uri == f"sqlite:///{home}/serving.db"
    assert of("sqlite:///mine/s.db") == f"sqlite:///{home}/mine/s.db"
    assert of("sqlite:////data/s.db") == "sqlite:////data/s.db"
    assert of("postgresql://u@h/d") == "postgresql://u@h/d"


def test_environment_variables_in_the_file_are_expanded_or_named(home: Path, monkeypatch) -> None:
    path = write(home, "source: {kind: files, paths: ['${BARS_FOLDER}/a.csv']}")
    monkeypatch.setenv("BARS_FOLDER", "/data")
    source = load_settings(path).source
    assert isinstance(source, FileSource)
    assert source.paths == ("/data/a.csv",)
    monkeypatch.delenv("BARS_FOLDER")
    with pytest.raises(SettingsError, match="BARS_FOLDER is not set"):
        load_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tunin: {seed: 1}", "tunin: unknown key"),
        ("tuning: {stage1_trials: none}", r"tuning.stage1_trials: .*valid integer.*got 'none'"),
        ("labels: {horizon_minutes: 5}", "label_tolerance_minutes=5 must be smaller than horizon_minutes=5"),
        ("labels: {class_edges: [0.1, 0, 0.2, 0.3]}", "class_edges=.* must be strictly increasing"),
        ("split: {train: 0.7}", "= 1.1; required: 1"),
        ("split: {cv_folds: 5, cv_share: 0.3}", "cv_folds \\* cv_share = 1.5; required: below 1"),
        ("clock: tomorrow", "clock='tomorrow'; required: data, system or an ISO 8601 time"),
        ("clock: '2024-05-01T14:30:00'", "has no time zone"),
        ("labels: {task: direction}\ntuning: {families: [ar]}", "cannot do labels.task='direction'"),
        ("name: a/b", "got 'a/b'; required: letters, digits"),
        ("source: {kind: files, paths: []}", "source.files.paths: .*at least 1 item"),
        ("source: {kind: feed}", "source: .*'simulator', 'files'"),
        ("[1, 2]", "got a list; required: a mapping of keys"),
        ("a: [", "not valid YAML"),
        ("name: a\nname: b", "not valid YAML .*the key 'name' stands twice"),
        ("1: 2", r"got the keys \[1\]; required: names"),
        ("tuning: {families: [ar, ar]}", "names a family twice"),
        ("labels: {extra_horizons_minutes: [60, -5]}", "extra_horizons_minutes=.* different minutes above"),
        ("labels: {extra_horizons_minutes: [60, 60]}", "extra_horizons_minutes=.* different minutes above"),
        ("bar_interval_minutes: 60", "a horizon of 30 minutes never ends .*bar_interval_minutes=60"),
        (
            "features: {groups: [retruns]}",
            r"features.groups: got \['retruns'\]; required: some of \['returns', ",
        ),
        ("features: {exclude: [sma]}", r"features.exclude: \['sma'\] are not features of the standard"),
        (
            "features: {catalog: seed-compatible, groups: [trend]}",
            r"features.groups: got \['trend'\]; required: some of \['seed_tech",
        ),
        ("{bar_interval_minutes: 20, labels: {horizon_minutes: 50}}", "a horizon of 50 minutes never ends"),
        ("serving: {rollout: {steps: [5, 5, 100]}}", r"steps=\[5.0, 5.0, 100.0\]; required: increasing perc"),
        ("serving: {rollout: {steps: [0, 100]}}", "required: increasing percentages"),
        ("serving: {rollout: {steps: [0.005, 100]}}", "required: increasing percentages, whole hundredths"),
        ("serving: {rollout: {steps: [1, 50]}}", "required: .* the last 100"),
    ],
)
def test_a_wrong_setting_names_the_key_and_the_rule(home: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(write(home, text))
    assert caught.value.exit_code == 2


def test_a_horizon_of_whole_bars_is_accepted(home: Path) -> None:
    hourly = load_settings(write(home, "{bar_interval_minutes: 60, labels: {horizon_minutes: 60}}"))
    assert hourly.labels.extra_horizons_minutes == (60,)


def test_a_group_of_the_users_own_is_known_when_their_file_is_run(home: Path) -> None:
    (home / "mine.py").write_text("raise RuntimeError")  # not run to read settings
    settings = load_settings(write(home, "features: {groups: [mine], files: [mine.py]}"))
    assert settings.features.groups == ("mine",)


def test_a_file_that_is_no_text_is_named(home: Path) -> None:
    path = home / "settings.yaml"
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(SettingsError, match=r"settings.yaml: not a text file in UTF-8"):
        load_settings(path)


def test_an_unreadable_environment_variable_is_named(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("MARKETRAY_TUNING", "{bad")
    with pytest.raises(SettingsError, match=r'environment: .*field "tuning".*required: JSON') as caught:
        load_settings()
    assert caught.value.exit_code == 2


def test_saved_settings_load_as_they_were(home: Path) -> None:
    settings = load_settings(
        None,
        {
            "source": {"kind": "files", "paths": ["/a.csv"], "timezone": "UTC"},
            "market": {"calendar": "XNYS", "breaks": []},
            "tracking": {"uri": "http://me:secret@tracking", "model_name": "m"},
        },
    )
    path = settings.run_path / "settings.yaml"
    save_settings(settings, path)
    assert "secret" not in path.read_text()
    again = load_settings(path)
    assert again.model_copy(update={"tracking": settings.tracking}) == settings
    assert again.tracking.model_name == "m"
    (home / "file").write_text("")
    with pytest.raises(SettingsError, match=r"settings.yaml: the settings cannot be written"):
        save_settings(settings, home / "file" / "settings.yaml")


def test_a_missing_file_is_named(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent.yaml: cannot be read \(No such file"):
        load_settings(home / "absent.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_committed_configuration_loads(home: Path, monkeypatch, path: Path) -> None:
    monkeypatch.setenv("MARKETRAY_DATA", "/data")
    assert load_settings(path).name == path.stem
