"""Fixtures shared by all tests: one local Ray a run, a fresh home a test, the optional real data."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from marketray.cluster import prepare_environment
from marketray.settings import Settings, load_settings
from tests.groups import ByGroup, longest_first

prepare_environment()
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")
os.environ.setdefault("RAY_TMPDIR", "/tmp")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves its workers beside another test process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long groups first, else a process waits for the other at the end."""
    items.sort(key=lambda item: longest_first(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadgroup`` by our own groups: pytest-xdist 3.8 writes its marks where pytest 9 reads none."""
    if config.getvalue("dist") != "loadgroup":
        return None
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray with two CPUs for the whole run, without a dashboard."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh MARKETRAY_HOME with no tracking server from outside."""
    monkeypatch.setenv("MARKETRAY_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def empty_tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them; making one takes a second."""
    from marketray.tracking import connect_tracking

    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    settings = load_settings(overrides={"tracking": {"uri": f"sqlite:///{path}"}})
    connect_tracking(settings).search_experiments()
    return path


@pytest.fixture
def tracked_home(home: Path, empty_tracking: Path) -> Path:
    """A fresh MARKETRAY_HOME whose MLflow database is there already."""
    shutil.copyfile(empty_tracking, home / "mlflow.db")
    return home


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """``user@host:port/database`` of a PostgreSQL; skipped where PostgreSQL is not installed."""
    from tests.registry_server import postgres, postgres_programs

    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(programs) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[str]:
    """Address of an MLflow server over the PostgreSQL."""
    from tests.registry_server import registry_server

    with registry_server(tmp_path_factory.mktemp("artifacts"), postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def settings_of_store(
    request: pytest.FixtureRequest, tracked_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings with an empty registry on either store; they stand in the environment too."""
    if request.param == "postgresql":
        own = f"test-{uuid.uuid4().hex[:12]}"
        monkeypatch.setenv("MARKETRAY_TRACKING__URI", request.getfixturevalue("mlflow_server"))
        monkeypatch.setenv("MARKETRAY_TRACKING__EXPERIMENT", own)
        monkeypatch.setenv("MARKETRAY_TRACKING__MODEL_NAME", own)
    return load_settings()


@pytest.fixture(scope="session")
def spx_path() -> Path:
    """Real S&P 500 minute bars; skipped where the data folder is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("MARKETRAY_DATA", default)) / "spx_1m_histdata.parquet"
    if not path.exists():
        pytest.skip(f"{path} is absent; set MARKETRAY_DATA to the folder of the real data")
    return path
