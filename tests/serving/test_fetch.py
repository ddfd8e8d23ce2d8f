"""A slot's files come by a task; whatever becomes of it, the slot lives and knows why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from marketray.errors import ClusterError, ModelError, RegistryError
from marketray.serving import app
from marketray.settings import Settings, load_settings


class Task:
    """Stands for the remote function."""

    def options(self, **_: object) -> Task:
        return self

    def remote(self, settings: Settings, version: int) -> int:
        return version


class Context:
    def get_node_id(self) -> str:
        return "0" * 56


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the task comes to."""
    found: list[Any] = []

    def get(_: object) -> object:
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    monkeypatch.setattr(app, "_download", Task())
    monkeypatch.setattr(app.ray, "get_runtime_context", Context)
    monkeypatch.setattr(app.ray, "get", get)
    return found


def test_the_folder(outcome: list[Any]) -> None:
    outcome.append("/models/7")
    assert app._fetch(Settings(), 7) == Path("/models/7")


@pytest.mark.parametrize(
    ("end", "kind", "match"),
    [
        (RayTaskError("f", "t", ModelError("damaged")), ModelError, "^damaged$"),
        (RayTaskError("f", "Traceback\nOSError: no space", OSError("no space")), RegistryError, "no space"),
        (
            WorkerCrashedError(),
            RegistryError,
            "version 7 was not fetched: WorkerCrashedError: The worker died",
        ),
    ],
)
def test_what_ends_the_task_is_told(outcome: list[Any], end: Exception, kind: type, match: str) -> None:
    outcome.append(end)
    with pytest.raises(kind, match=match):
        app._fetch(Settings(), 7)


def test_several_nodes_need_a_store_that_all_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": alive} for alive in (True, False, True)])
    settings = load_settings(None, {"serving": {"store_uri": "sqlite:////tmp/serving.db"}})
    monkeypatch.setenv("MARKETRAY_SHARED_HOME", "1")  # sqlite's locks do not hold there
    message = (
        r"2 live nodes but serving\.store_uri=sqlite:////tmp/serving\.db is on one node's disk; required: p"
    )
    with pytest.raises(ClusterError, match=message):
        app.application(settings)
