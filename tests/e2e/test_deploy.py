"""The deployment file for two models deploys, and both answer their declared part of the callers."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from tests.e2e.conftest import Jobs
from tests.e2e.deployment import KEYS

pytestmark = pytest.mark.timeout(900)  # the first to ask for the run waits for all of it


def test_blue_green_yaml_deploys_both_models_with_their_weights(jobs: Jobs) -> None:
    found = jobs.deployment
    assert found.printed.returncode == 0, found.printed.stdout[-4000:]
    assert found.application["status"] == "RUNNING", found.application
    replicas = {name: len(d["replicas"]) for name, d in found.application["deployments"].items()}
    assert replicas == {"ingress": 1, "slot-blue": 1, "slot-green": 1, "control": 1}  # of the file, not 2
    assert found.traffic["weights"] == {"blue": 90.0, "green": 10.0}
    assert found.traffic["models"] == found.traffic["answering"] == {"blue": 1, "green": 2}
    said = {key: (answer["slot"], answer["model_version"]) for key, answer in found.answers.items()}
    buckets = {key: int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % 10_000 for key in KEYS}
    assert said == {key: ("green", 2) if b < 1_000 else ("blue", 1) for key, b in buckets.items()}
    assert len(set(said.values())) == 2
    assert len({answer["prediction"] for answer in found.answers.values()}) == 1  # one model stands in both
