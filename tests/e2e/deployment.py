"""``serve deploy serve_configs/blue_green.yaml`` on a running cluster, and what clients see of it then."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from marketray.registry import Registry
from marketray.settings import load_settings
from tests.ray_head import ROOT, Head

FILE = ROOT / "serve_configs" / "blue_green.yaml"
KEYS = tuple(f"client-{n}" for n in range(40))


@dataclass(frozen=True)
class Deployment:
    """What was seen of it.

    Attributes
    ----------
    printed:
        What ``serve deploy`` said.
    application:
        How the dashboard describes the application when it runs, or two minutes later.
    traffic:
        GET /traffic; nothing where no application runs.
    answers:
        POST /predict by the caller's key, each of `KEYS` once.
    """

    printed: subprocess.CompletedProcess[str]
    application: dict[str, Any]
    traffic: dict[str, Any]
    answers: dict[str, Any]


def deploy(head: Head, of: Path, model: Path, settings: dict[str, Any]) -> Deployment:
    """Deploy the file with another port, `args.config`, and one replica each, where the settings say two.

    Served are the champion of the home `of`, in a copy of its registry, and the same `model` as challenger.
    """
    home = of / "deployed"
    home.mkdir()
    shutil.copyfile(of / "mlflow.db", home / "mlflow.db")
    described = {**settings, "home": str(home), "lake": str(of / "lake"), "serving": {"num_replicas": 2}}
    (home / "settings.yaml").write_text(yaml.safe_dump(described))
    registry = Registry(load_settings(home / "settings.yaml"))
    evidence = {"verdict": "bootstrap", "r2_oos": 0.01, "p_value": 0.02}
    registry.set_alias("challenger", registry.register(model, key="again", evidence=evidence).version)
    file = yaml.safe_load(FILE.read_text())
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        file["http_options"]["port"] = port = s.getsockname()[1]
    (application,) = file["applications"]
    application["args"]["config"] = str(home / "settings.yaml")
    for deployment in application["deployments"]:
        deployment["num_replicas"] = 1
    (home / "blue_green.yaml").write_text(yaml.safe_dump(file))
    printed = head.deploy(home / "blue_green.yaml")
    running = _until_decided(head, application["name"])
    if running.get("status") != "RUNNING":
        return Deployment(printed, running, {}, {})
    return Deployment(printed, running, *_seen(f"http://127.0.0.1:{port}"))


def _until_decided(head: Head, name: str) -> dict[str, Any]:
    """The application once it runs or has failed."""
    deadline = time.monotonic() + 120
    found: dict[str, Any] = {}
    while (
        found.get("status") not in ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY") and time.monotonic() < deadline
    ):
        time.sleep(0.25)
        answer = httpx.get(f"{head.dashboard}/api/serve/applications/", timeout=30)
        found = answer.json().get("applications", {}).get(name, {}) if answer.is_success else {}
    return found


def _seen(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = {
            key: client.post("/predict", json={}, headers={"X-Client-Key": key}).json() for key in KEYS
        }
        return client.get("/traffic").json(), answers
