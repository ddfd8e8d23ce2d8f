"""Which device and number format to score with; decided on the driver, without torch."""

from __future__ import annotations

import platform
from pathlib import Path

from marketray.errors import SettingsError

__all__ = ["TOKEN_BUDGETS", "choose_device", "choose_dtype", "cpu_has_bfloat16"]

TOKEN_BUDGETS = {"cpu": 1_024, "cuda": 32_768, "mps": 8_192}
"""Tokens of a batch: what stays in a CPU core's caches, and what fills a GPU."""

_NATIVE_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 with AVX-512 or AMX; 64-bit Arm


def choose_device(wanted: str, cluster_gpus: float) -> str:
    """`cuda` where the cluster has a GPU, else `mps` on a Mac with Apple silicon, else `cpu`.

    Raises
    ------
    SettingsError
        `wanted` is cuda and the cluster has no GPU.
    """
    if wanted == "cuda" and not cluster_gpus:
        msg = "sentiment.device='cuda', but the Ray cluster has no GPU"
        raise SettingsError(msg, hint="add a node with a GPU, or set sentiment.device to auto or cpu")
    if wanted != "auto":
        return wanted
    if cluster_gpus:
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"


def choose_dtype(wanted: str, device: str) -> str:
    """bfloat16 on cuda and on CPUs that multiply it natively, else float32, unless one is wanted.

    Without native bfloat16 a CPU converts back and forth and is slower than in float32.
    """
    if wanted != "auto":
        return wanted
    native = device == "cuda" or (device == "cpu" and cpu_has_bfloat16())
    return "bfloat16" if native else "float32"


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's CPU multiplies bfloat16 natively; False where the system does not say."""
    if not cpuinfo.exists():
        return False
    lines = cpuinfo.read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return bool(_NATIVE_FLAGS & set(flags.partition(":")[2].split()))
