"""Where a scoring runs: device, number format, processes and their share of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketray.errors import ClusterError, SettingsError
from marketray.sentiment.device import choose_device, choose_dtype, cpu_has_bfloat16
from marketray.sentiment.pool import plan_pool
from marketray.settings import SentimentSettings


@pytest.mark.parametrize(
    ("wanted", "gpus", "machine", "device"),
    [
        ("auto", 0, ("Linux", "x86_64"), "cpu"),
        ("auto", 2, ("Linux", "x86_64"), "cuda"),
        ("auto", 0, ("Darwin", "arm64"), "mps"),
        ("cpu", 2, ("Linux", "x86_64"), "cpu"),
    ],
)
def test_device(
    wanted: str, gpus: float, machine: tuple[str, str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: machine[0])
    monkeypatch.setattr("platform.machine", lambda: machine[1])
    assert choose_device(wanted, gpus) == device


def test_cuda_needs_a_gpu_in_the_cluster() -> None:
    with pytest.raises(SettingsError, match="sentiment.device='cuda', but the Ray cluster has no GPU"):
        choose_device("cuda", 0)


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", True),
        ("flags\t\t: fpu amx_tile amx_bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("model name\t: bf16", False),
    ],
)
def test_native_bfloat16(tmp_path: Path, line: str, native: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert cpu_has_bfloat16(cpuinfo) is native
    assert not cpu_has_bfloat16(tmp_path / "absent")


def test_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_dtype("auto", "cuda") == "bfloat16"
    assert choose_dtype("auto", "mps") == "float32"
    assert choose_dtype("float16", "cuda") == "float16"
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("marketray.sentiment.device.cpu_has_bfloat16", lambda native=native: native)
        assert choose_dtype("auto", "cpu") == dtype


@pytest.mark.parametrize(
    ("cpus", "blocks", "actors", "threads"), [(2, 1, 1, 2), (2, 40, 2, 1), (16, 40, 8, 2), (1, 9, 1, 1)]
)
def test_cpus_are_filled_and_some_left_for_tasks(cpus: int, blocks: int, actors: int, threads: int) -> None:
    pool = plan_pool(SentimentSettings(), "cpu", blocks, {"CPU": cpus})
    assert (pool.actors, pool.threads) == (actors, threads)
    assert pool.actors * pool.actor_cpus + 2 * pool.task_cpus <= cpus


def test_gpus_are_shared_as_asked() -> None:
    resources = {"CPU": 16.0, "GPU": 2.0}
    assert plan_pool(SentimentSettings(), "cuda", 100, resources).actors == 2
    shared = plan_pool(SentimentSettings(num_gpus=0.5), "cuda", 100, resources)
    assert (shared.actors, shared.actor_gpus) == (4, 0.5)


@pytest.mark.parametrize(
    ("device", "resources", "problem"),
    [
        (
            "cuda",
            {"CPU": 16.0, "GPU": 2.0},
            r"sentiment.actors=3 with num_gpus=1 each; .* 16 CPUs and 2 GPUs",
        ),
        ("cpu", {"CPU": 2.0}, "sentiment.actors=3 with one CPU each; the Ray cluster has 2 CPUs and 0 GPUs"),
    ],
)
def test_more_than_the_cluster_holds_is_refused(
    device: str, resources: dict[str, float], problem: str
) -> None:
    with pytest.raises(ClusterError, match=problem):
        plan_pool(SentimentSettings(actors=3), device, 10, resources)
