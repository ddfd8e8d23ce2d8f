"""Settings: one YAML file plus environment variables; unknown keys are errors.

Precedence: explicit overrides (command-line options) > environment > YAML file > defaults. An
environment variable is ``MARKETRAY_`` + the key, nested with two underscores:
``MARKETRAY_TUNING__STAGE1_TRIALS=5``. ``${NAME}`` in a YAML string is replaced by the environment
variable NAME. Relative paths resolve against ``home`` (``MARKETRAY_HOME``, default ``~/.marketray``),
never against a job's working directory.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

from marketray.bars import DAY_MINUTES
from marketray.errors import SettingsError
from marketray.settings_file import describe, read_feature_file, read_gate_file, read_settings_file
from marketray.settings_gate import GateSettings
from marketray.settings_sections import (
    BacktestSettings,
    FeatureSettings,
    FileSource,
    LabelSettings,
    MarketSettings,
    Name,
    NewsSettings,
    QualitySettings,
    SentimentSettings,
    SimulatorSource,
    SplitSettings,
    TrackingSettings,
    TuningSettings,
)
from marketray.settings_serving import RolloutSettings, ServingSettings

__all__ = [
    "BacktestSettings",
    "FeatureSettings",
    "FileSource",
    "GateSettings",
    "LabelSettings",
    "MarketSettings",
    "NewsSettings",
    "QualitySettings",
    "RolloutSettings",
    "SentimentSettings",
    "ServingSettings",
    "Settings",
    "SimulatorSource",
    "SplitSettings",
    "TrackingSettings",
    "TuningSettings",
    "load_settings",
]


class Settings(BaseSettings):
    """Everything one run needs. See the module docstring for precedence."""

    model_config = SettingsConfigDict(
        env_prefix="MARKETRAY_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    home: Path = Path("~/.marketray")  # lake, runs, models, MLflow database
    name: Name = "default"  # of the run: its dataset, folder and experiment
    instrument: Name = "SPX500_USD"  # its name in the lake; the one that is labelled, tuned and served
    instruments: tuple[Name, ...] = ()  # all that are ingested and get features; empty: just `instrument`
    bar_interval_minutes: int = Field(1, ge=1, le=DAY_MINUTES)
    clock: str = "data"  # data: the last bar's end; system: now; or an ISO 8601 time with zone
    source: SimulatorSource | FileSource = Field(SimulatorSource(), discriminator="kind")
    news: NewsSettings | None = None  # articles in files; without this section there are none
    market: MarketSettings = MarketSettings()
    quality: QualitySettings = QualitySettings()
    features: FeatureSettings = FeatureSettings()
    sentiment: SentimentSettings = SentimentSettings()
    labels: LabelSettings = LabelSettings()
    split: SplitSettings = SplitSettings()
    tuning: TuningSettings = TuningSettings()
    gate: GateSettings = GateSettings()
    backtest: BacktestSettings = BacktestSettings()
    tracking: TrackingSettings = TrackingSettings()
    serving: ServingSettings = ServingSettings()
    lake: str | None = None  # path or URI; default: <home>/lake

    @model_validator(mode="after")
    def _distinct_instruments(self) -> Settings:
        names = self.instruments
        if names and (self.instrument not in names or len(set(names)) < len(names)):
            msg = (
                f"instruments={list(names)}; required: different names, and instrument={self.instrument!r} "
                "among them"
            )
            raise ValueError(msg)
        if len(names) > 1 and isinstance(self.source, FileSource) and self.source.instrument_column is None:
            msg = (
                f"instruments={list(names)} would all be made of the same rows; required: "
                "source.instrument_column, the column that names the instrument of a row"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _news_of_one_kind(self) -> Settings:
        if self.news is not None and not isinstance(self.source, FileSource):
            msg = "news: the simulator writes articles of its own; required: source.kind=files beside news"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _known_clock(self) -> Settings:
        if self.clock not in ("data", "system"):
            try:
                moment = datetime.fromisoformat(self.clock)
            except ValueError as e:
                msg = f"clock={self.clock!r}; required: data, system or an ISO 8601 time with zone"
                raise ValueError(msg) from e
            if moment.tzinfo is None:
                msg = f"clock={self.clock!r} has no time zone; required: e.g. 2024-05-01T14:30:00Z"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _some_family(self) -> Settings:
        if self.labels.task == "direction" and set(self.tuning.families) == {"ar"}:
            msg = "tuning.families=['ar'] cannot do labels.task='direction'; required: xgboost or lightgbm"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _reachable_horizon(self) -> Settings:
        step, labels = self.bar_interval_minutes, self.labels
        if step == DAY_MINUTES:  # daily bars have features only, as the dataset stage says
            return self
        for horizon in (labels.horizon_minutes, *labels.extra_horizons_minutes):
            if horizon < step or horizon % step > labels.label_tolerance_minutes:
                msg = (
                    f"labels: a horizon of {horizon} minutes never ends within label_tolerance_minutes="
                    f"{labels.label_tolerance_minutes} after a bar of bar_interval_minutes={step}; required: "
                    f"horizon_minutes and extra_horizons_minutes that are multiples of {step}"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _feature_files_read(self) -> Settings:
        """Take the feature files' text in, so that it goes wherever the settings go."""
        files = self.features.files
        if any(f.text is None for f in files):
            read = tuple(f if f.text is not None else read_feature_file(self.resolve(f.path)) for f in files)
            self.__dict__["features"] = self.features.model_copy(update={"files": read})
        return self

    @model_validator(mode="after")
    def _gate_file_read(self) -> Settings:
        """Put the gate file's keys in the place of its path, so that they go wherever the settings go."""
        if self.gate.file is not None:
            beside = sorted(self.gate.model_fields_set - {"file"})
            if beside:
                keys = ", ".join(f"gate.{key}" for key in beside)
                msg = f"gate.file={self.gate.file!r} stands beside {keys}; required: the file or the keys"
                raise SettingsError(msg, hint="keep one of the two")
            self.__dict__["gate"] = read_gate_file(self.resolve(self.gate.file))
        return self

    @property
    def panel(self) -> tuple[str, ...]:
        """Names of all instruments that are ingested and get features; `instrument` is one of them."""
        return self.instruments or (self.instrument,)

    def only(self, instrument: str) -> Settings:
        """These settings for one instrument of the panel alone: the same bars, read by `source.select`."""
        source = self.source
        if isinstance(source, FileSource) and source.instrument_column is not None:
            select = {**source.select, source.instrument_column: instrument}
            source = source.model_copy(update={"instrument_column": None, "select": select})
        return self.model_copy(update={"instrument": instrument, "instruments": (), "source": source})

    @property
    def home_path(self) -> Path:
        """Absolute home folder, ``~`` expanded."""
        return self.home.expanduser().absolute()

    @property
    def lake_uri(self) -> str:
        """Absolute path or URI of the lake."""
        if self.lake is None:
            return str(self.home_path / "lake")
        return self.lake if "://" in self.lake else str(self.resolve(self.lake))

    @property
    def run_path(self) -> Path:
        """Folder of this run's tuning records, selection and report."""
        return self.home_path / "runs" / self.name

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI: the setting, else MLFLOW_TRACKING_URI, else sqlite in home.

        A relative sqlite path starts at home.
        """
        uri = self.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        return self._from_home(uri)

    @property
    def store_uri(self) -> str:
        """Database of the service, see `marketray.serving.store`; a relative sqlite path starts at home."""
        return self._from_home(self.serving.store_uri or "sqlite:///serving.db")

    @property
    def experiment(self) -> str:
        """MLflow experiment name."""
        return self.tracking.experiment or f"marketray-{self.name}"

    @property
    def model_name(self) -> str:
        """Registered model name."""
        return self.tracking.model_name or f"marketray-{self.instrument}"

    def _from_home(self, uri: str) -> str:
        database = uri.removeprefix("sqlite:///")
        return f"sqlite:///{self.resolve(database)}" if database != uri else uri

    def resolve(self, path: str) -> Path:
        """Absolute form of `path`; relative ones start at home."""
        return self.home_path / Path(path).expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Overrides first, then the environment, then the file (put in by `load_settings`)."""
        init = dict(init_settings())
        file = init.pop("_file", {})
        return (
            InitSettingsSource(settings_cls, init_kwargs=init),
            env_settings,
            InitSettingsSource(settings_cls, init_kwargs=file),
        )


def load_settings(config: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read settings from a YAML file, the environment and overrides.

    Parameters
    ----------
    config:
        Path of a YAML file, or None for defaults.
    overrides:
        Nested keys that win over everything else, e.g. ``{"tuning": {"seed": 1}}``.

    Raises
    ------
    SettingsError
        The file is missing or unreadable, a key is unknown, a value is wrong, or the catalog has no such
        feature or group; the message names the key, what was got and what is required.
    """
    file = read_settings_file(Path(config)) if config is not None else {}
    if "source" in (overrides or {}):  # another source, not a change of keys within the file's
        file.pop("source", None)
    try:
        settings = Settings(**{"_file": file, **(overrides or {})})
    except ValidationError as e:
        where = f"settings {config}" if config is not None else "settings"
        lines = [f"{'.'.join(map(str, d['loc'])) or 'settings'}: {describe(d)}" for d in e.errors()]
        msg = f"{where}: " + "; ".join(lines)
        raise SettingsError(msg, hint="docs/settings.md lists every key with its default") from e
    except UnreadableVariable as e:
        msg = f"environment: {e}; required: JSON, or one variable a key such as MARKETRAY_TUNING__SEED=1"
        raise SettingsError(msg, hint="fix or unset the MARKETRAY_ variable of this name") from e
    _check_features_named(settings)
    return settings


def _check_features_named(settings: Settings) -> None:
    """Refuse groups and features that the catalog lacks; files of the user's own may have them."""
    named = settings.features
    if (named.groups or named.exclude) and not named.files:
        from marketray.features.catalog import check_features

        check_features(named, settings.bar_interval_minutes)
