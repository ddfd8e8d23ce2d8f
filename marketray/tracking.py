"""MLflow without noise: a checked client, the parent run of a tuning and one child run a trial.

Only explicit clients are used, never MLflow's process-wide state, so two runs in one process cannot
write into each other's server. Everything here is idempotent by tag: what a killed process left
unfinished is completed by the next one and never doubled.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import socket
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marketray.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from marketray.settings import Settings

__all__ = [
    "close_parent_run",
    "connect_tracking",
    "experiment_id",
    "log_trials",
    "mask_uri",
    "open_parent_run",
    "quiet_mlflow",
    "translated",
]

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
_NOT_VALUES = ("params", "trial_id", "name", "started_at", "ended_at")
_TIMEOUT_SECONDS = 4.0
_PARAM_LIMIT = 6_000  # characters MLflow stores of a parameter
_BATCH = 100  # parameters MLflow takes in one call
_HINT = "start the tracking server, or correct tracking.uri / MLFLOW_TRACKING_URI"
_FILE_HINT = "check that home (MARKETRAY_HOME) can be written, or correct tracking.uri / MLFLOW_TRACKING_URI"
_DRIVER_HINT = "install the database's driver (PostgreSQL: pip install 'marketray[postgres]')"
_DISK_HINT = "free disk space or fix the permissions, then run again"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def quiet_mlflow() -> None:
    """Turn off MLflow's telemetry, banners and long HTTP retries, unless the user has set them.

    Must run before the first ``import mlflow`` of a process to have its whole effect. Imports
    ``mlflow.pyfunc`` too, whose own import warns about its own type hints.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("mlflow.pyfunc")
    for name in ("mlflow", "alembic"):  # after the import, which configures them
        logging.getLogger(name).setLevel(logging.ERROR)


def mask_uri(uri: str) -> str:
    """`uri` with a password in it replaced by ``***``."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", uri)


@contextmanager
def translated(settings: Settings, doing: str) -> Iterator[None]:
    """Turn MLflow's, the database's, its missing driver's and the network's errors into `RegistryError`.

    Parameters
    ----------
    doing:
        What was being done, for the message: ``"registering the model"``.
    """
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (
        MlflowException,
        sqlalchemy.exc.SQLAlchemyError,
        requests.RequestException,
        OSError,
        ModuleNotFoundError,
    ) as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        msg = f"{doing} failed at tracking.uri={mask_uri(settings.tracking_uri)}: {first[:300]}"
        local = isinstance(e, OSError) and not isinstance(e, requests.RequestException)
        hint = _DRIVER_HINT if isinstance(e, ModuleNotFoundError) else _DISK_HINT if local else _HINT
        raise RegistryError(msg, hint=hint) from e


def connect_tracking(settings: Settings) -> MlflowClient:
    """A client of the tracking server and model registry, after a check that takes a few seconds at most.

    Raises
    ------
    RegistryError
        The server does not answer, or the database cannot be opened.
    """
    uri = settings.tracking_uri
    _check_reachable(uri)
    quiet_mlflow()
    from mlflow import MlflowClient

    with translated(settings, "connecting"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's tables use deprecated parts of SQLAlchemy
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(client: MlflowClient, settings: Settings) -> str:
    """Identity of the run's experiment, created on first use.

    With a database as tracking URI the artefacts go to ``<home>/artifacts``; a server decides itself.

    Raises
    ------
    RegistryError
        The experiment was deleted in MLflow, or cannot be created.
    """
    with translated(settings, f"opening experiment {settings.experiment!r}"):
        found = client.get_experiment_by_name(settings.experiment)
        if found is None:
            local = not settings.tracking_uri.startswith(("http://", "https://"))
            location = (settings.home_path / "artifacts" / settings.experiment).as_uri() if local else None
            return str(client.create_experiment(settings.experiment, artifact_location=location))
    if found.lifecycle_stage != "active":
        msg = f"tracking.experiment={settings.experiment!r} is deleted in MLflow; required: an active one"
        raise RegistryError(msg, hint="restore it with `mlflow experiments restore`, or name another")
    return str(found.experiment_id)


def open_parent_run(settings: Settings, tuning_key: str, params: Mapping[str, Any]) -> str:
    """The MLflow run that the trials of this tuning hang under; the same key gives the same run.

    Parameters
    ----------
    tuning_key:
        Digest of the data, settings and code that the tuning is made from.
    params:
        Nested values to record, such as data hash and catalog hash. The settings are added under
        ``settings.``, the tracking address left out.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    RegistryError
        The tracking server cannot be reached.
    """
    client = connect_tracking(settings)
    experiment = experiment_id(client, settings)
    with translated(settings, "opening the parent run"):
        query = f"tags.`marketray.kind` = 'tuning' and tags.`marketray.tuning_key` = '{tuning_key}'"
        found = client.search_runs([experiment], query, max_results=1)
        if found:
            run = found[0]
        else:
            tags = {"marketray.kind": "tuning", "marketray.tuning_key": tuning_key}
            run = client.create_run(experiment, tags=tags, run_name=f"tuning-{tuning_key[:8]}")
        own = settings.model_dump(mode="json", exclude={"tracking"})
        values = _flatten({**params, "settings": own})
        known = run.data.params
        _log_params(client, run.info.run_id, {k: v for k, v in values.items() if k not in known})
        return str(run.info.run_id)


def close_parent_run(settings: Settings, run_id: str, metrics: Mapping[str, float] | None = None) -> None:
    """Mark the parent run as finished, with final figures such as ``test_rmse_pct``."""
    client = connect_tracking(settings)
    with translated(settings, "closing the parent run"):
        for name, value in (metrics or {}).items():
            if math.isfinite(value):
                client.log_metric(run_id, name, float(value))
        client.set_terminated(run_id, "FINISHED")


def log_trials(settings: Settings, parent_run_id: str, records: Sequence[Mapping[str, Any]]) -> int:
    """Record finished trials as child runs of `parent_run_id`; those already there are left alone.

    Parameters
    ----------
    records:
        One mapping a trial. ``trial_id`` (required) identifies it under the parent; ``params`` (nested)
        become MLflow parameters; other finite numbers become metrics, texts and flags become tags.
        ``name`` overrides the run's display name; ``started_at`` and ``ended_at`` (seconds since the
        epoch) become the run's times.

    Returns
    -------
    int
        How many runs were written.

    Raises
    ------
    RegistryError
        A record has no trial_id, or the tracking server cannot be reached.
    """
    for record in records:
        if not record.get("trial_id"):
            msg = f"log_trials: got a record with the keys {sorted(record)}; required: trial_id"
            raise RegistryError(msg)
    client = connect_tracking(settings)
    written = 0
    with translated(settings, "recording the trials"):
        experiment = client.get_run(parent_run_id).info.experiment_id
        present = _child_runs(client, experiment, parent_run_id)
        for record in records:
            trial_id = str(record["trial_id"])
            run_id, finished = present.get(trial_id, (None, False))
            if not finished:
                _log_trial(client, experiment, parent_run_id, record, run_id)
                present[trial_id] = ("", True)
                written += 1
    logger.info("MLflow: %d of %d trials written under run %s", written, len(records), parent_run_id)
    return written


def _log_trial(
    client: MlflowClient, experiment: str, parent: str, record: Mapping[str, Any], run_id: str | None
) -> None:
    """Write one child run: tags at creation, then values, and FINISHED last as the commit mark."""
    from mlflow.entities import Metric

    trial_id = str(record["trial_id"])
    if run_id is None:
        tags = {"mlflow.parentRunId": parent, "marketray.kind": "trial", "marketray.trial_id": trial_id}
        name = str(record.get("name") or trial_id)
        started = _milliseconds(record.get("started_at"))
        run_id = client.create_run(experiment, started, tags=tags, run_name=name).info.run_id
    rest = _flatten({k: v for k, v in record.items() if k not in _NOT_VALUES})
    numbers = {k: float(v) for k, v in rest.items() if _is_number(v)}
    metrics = [Metric(k, v, 0, 0) for k, v in numbers.items() if math.isfinite(v)]
    _log_params(client, run_id, _flatten(record.get("params") or {}))
    client.log_batch(run_id, metrics=metrics)
    for key, value in rest.items():
        if key not in numbers and value is not None:
            client.set_tag(run_id, f"marketray.{key}", str(value)[:_PARAM_LIMIT])
    client.set_terminated(run_id, "FINISHED", _milliseconds(record.get("ended_at")))


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(1000 * seconds)


def _child_runs(client: MlflowClient, experiment: str, parent: str) -> dict[str, tuple[str | None, bool]]:
    """Run id and whether it is finished, by trial id."""
    found: dict[str, tuple[str | None, bool]] = {}
    token = None
    while True:
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        page = client.search_runs([experiment], query, max_results=1000, page_token=token)
        for run in page:
            trial_id = run.data.tags.get("marketray.trial_id")
            if trial_id is not None:
                found[trial_id] = (run.info.run_id, run.info.status == "FINISHED")
        token = page.token
        if not token:
            return found


def _log_params(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(k, str(v)[:_PARAM_LIMIT]) for k, v in values.items()]
    for start in range(0, len(params), _BATCH):
        client.log_batch(run_id, params=params[start : start + _BATCH])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; characters MLflow refuses become ``_``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./ :-]", "_", str(key))
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _check_reachable(uri: str) -> None:
    """Refuse within seconds what MLflow itself would retry for minutes."""
    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            _ask_server(uri)
        elif parts.scheme == "sqlite":
            _open_database(uri)
        elif parts.hostname:
            dialect = parts.scheme.split("+")[0]
            port = parts.port or _DATABASE_PORTS.get(dialect, 0)
            socket.create_connection((parts.hostname, port), _TIMEOUT_SECONDS).close()
    except (OSError, sqlite3.Error, ValueError) as e:
        msg = f"tracking.uri={mask_uri(uri)} cannot be reached: {e}"
        hint = _FILE_HINT if uri.startswith("sqlite:") else _HINT
        raise RegistryError(msg, hint=hint) from e


def _open_database(uri: str) -> None:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_absolute():  # a job's working directory is a temporary copy, gone with its runs
        msg = "it names no absolute path; required: sqlite:// + / + an absolute path"
        raise ValueError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS)
    try:
        connection.execute("PRAGMA schema_version")
    finally:
        connection.close()


def _ask_server(uri: str) -> None:
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise OSError(str(e) or type(e).__name__) from e
    if answer.status_code in (502, 503, 504):
        msg = f"it answered {answer.status_code} {answer.reason_phrase}"
        raise OSError(msg)
