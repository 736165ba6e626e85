"""Where numbers come from: the machine and the package versions, without host names or paths."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "kvroam",
    "numpy",
    "numba",
    "torch",
    "transformers",
    "tokenizers",
    "gymnasium",
    "pettingzoo",
    "stable-baselines3",
    "sionna",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Return the version of Python and of each of `PACKAGES` that is installed; nothing is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what a timing depends on.

    Returns:
        cpu: model name; cores: logical cores of the machine; usable_cores: those open to this process;
        load_average: over 1, 5 and 15 minutes, None where the system has none; torch_threads and gpu: None
        while torch is not loaded (it is not loaded for this) or there is no GPU; system: such as
        "Linux x86_64".
    """
    # sys.modules, because importing torch takes seconds and a program without it has no torch threads.
    torch = sys.modules.get("torch")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "torch_threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    """Return the model name of the processor; `platform.processor()` is empty on most Linux systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
