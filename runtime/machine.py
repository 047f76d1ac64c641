"""What numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Of what a processor lists, what decides how fast, and to which last digit, it multiplies.
_VECTOR = (
    "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "sve", "i8mm", "bf16",
)  # fmt: skip
CPUINFO = Path("/proc/cpuinfo")
_PACKAGES = ("numpy", "mujoco", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt_rtx")


def machine() -> dict[str, Any]:
    """The processor, its cores, the system, and the versions of what is installed."""
    found = {name: number for name in _PACKAGES if (number := _version(name)) is not None}
    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": found,
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    return _told("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Its vector instructions: a name alone, such as that of a virtual machine, may stand for several."""
    listed = (_told("flags") or _told("Features") or "").split()
    return [name for name in _VECTOR if name in listed]


def _told(key: str) -> str | None:
    """What Linux says of the first processor under a key."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    return next((x.split(":", 1)[1].strip() for x in lines if x.partition(":")[0].strip() == key), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
