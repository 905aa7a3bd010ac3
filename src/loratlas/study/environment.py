"""What a trial ran on: versions, device and threads, kept beside its numbers."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from loratlas.numerics import VARIABLE

_LIBRARIES = ("loratlas", "torch", "transformers", "peft", "accelerate", "numpy")


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the numbers of a trial may depend on."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "device": device.type,
        "order_of_sums": os.environ.get(VARIABLE),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        **{name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
