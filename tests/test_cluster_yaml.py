"""cluster.yaml against Ray's own schema, and the promises of its comments."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

PATH = Path(__file__).parents[1] / "cluster.yaml"


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return loaded


def validate(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate(cluster)
    assert cluster["cluster_name"] == "marketray"  # Ray's check misses a lack of it


def test_the_check_notices_mistakes(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_minutes"):
        validate({**cluster, "idle_minutes": 5})
    broken = copy.deepcopy(cluster)
    broken["available_node_types"]["worker.cpu"]["min_workers"] = 99
    with pytest.raises(Exception, match=r"(?i)workers"):
        validate(broken)


def test_workers_scale_to_zero(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    assert "GPU" not in head["resources"]
    assert head["max_workers"] == 0
    workers = {name: t for name, t in types.items() if name != cluster["head_node_type"]}
    assert [t["min_workers"] for t in workers.values()] == [0, 0]
    assert all(t["max_workers"] > 0 for t in workers.values())
    assert sorted(t["resources"].get("GPU", 0) for t in workers.values()) == [0, 1]
    assert 0 < cluster["idle_timeout_minutes"] <= 10


def test_images_hold_the_ray_that_the_project_needs(cluster: dict[str, Any]) -> None:
    import ray

    version = ".".join(ray.__version__.split(".")[:2])
    images = [
        cluster["docker"]["image"],
        cluster["available_node_types"]["worker.gpu"]["docker"]["worker_image"],
    ]
    assert all(f":{version}." in image for image in images)
