"""How much memory does each phase of the work take, in the process that does it?

On CUDA the figures are PyTorch's own: tensors allocated, and what its allocator has reserved.
Elsewhere on Linux they are the process's: its resident set when the phase began, and its
high-water mark, which also holds the interpreter and the libraries.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

Phase = dict[str, int | None]
"""Bytes: `before` in use when it began, `peak` at its fullest, `reserved` by CUDA's allocator."""


class Gauge:
    """Keeps the memory of phases that follow one another.

    Attributes:
        phases: what each phase took, by its name; None where it cannot be read.
    """

    def __init__(self, device: torch.device) -> None:
        self.phases: dict[str, Phase] = {}
        self._cuda = device.type == "cuda"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what is done meanwhile; what ends with an error leaves no figure."""
        before = _begin_on_cuda() if self._cuda else _begin_in_process()
        yield
        self.phases[name] = {
            "before": before,
            "peak": torch.cuda.max_memory_allocated() if self._cuda else _status_bytes("VmHWM"),
            "reserved": torch.cuda.max_memory_reserved() if self._cuda else None,
        }


def above_before(phase: Phase) -> int | None:
    """Return how far a phase rose above what was in use when it began."""
    before, peak = phase["before"], phase["peak"]
    return None if before is None or peak is None else max(0, peak - before)


def _begin_on_cuda() -> int:
    torch.cuda.synchronize()
    # What an earlier phase left with the allocator would count as reserved by this one.
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _begin_in_process() -> int | None:
    _give_free_memory_back()
    # Asks Linux to forget the high-water mark of what came before; elsewhere, or where it is
    # not allowed, a peak is that of the process so far.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _give_free_memory_back() -> None:
    """Let glibc hand freed memory back, which would otherwise count as in use before a phase."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None
