"""What do the figures of a benchmark depend on: processor, cores, versions, peak of products?"""

import time
from collections.abc import Callable
from typing import Any

_VERSIONS = ("torch", "transformers", "peft", "accelerate")


def described(device: str) -> str:
    """Return a sentence on the hardware and one on the versions."""
    import torch

    from loratlas.study.environment import environment

    found = environment(torch.device(device))
    hardware = f"{found['processor']}, {found['num_cores']} cores, {found['platform']}"
    gpu = f"; {found['gpu']}" if found["gpu"] else ""
    versions = ", ".join(f"{name} {found[name]}" for name in _VERSIONS)
    return f"{hardware}{gpu}. Python {found['python']}, {versions}."


def peak_flops(device: str, dtype: str, *, threads: int, size: int, repeats: int = 10) -> float:
    """Return the operations a second of a large matrix product, the best of several.

    Args:
        device: cpu or cuda.
        dtype: fp32, tf32 or bf16.
        threads: of a CPU.
        size: rows and columns of both factors.
        repeats: products that are timed.
    """
    import torch

    torch.set_num_threads(threads)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    left = torch.randn(size, size, device=device).to(kind)
    right = torch.randn(size, size, device=device).to(kind)
    seconds = [_seconds(lambda: left @ right, device) for _ in range(repeats + 1)]
    torch.set_float32_matmul_precision(before)
    return 2 * size**3 / min(seconds[1:])


def _seconds(work: Callable[[], Any], device: str) -> float:
    import torch

    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
