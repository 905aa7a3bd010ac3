"""How is freed memory kept for the next pass instead of being handed back to the system?

A pass frees what the next one asks for again. glibc gives large blocks back to Linux at once, which
fills each page with zeros when it is asked for anew; that took up to a tenth of a step.
"""

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_MOST_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep blocks of up to 32 MiB; other allocators are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
        mallopt(_TOP_PAD, _LARGEST_MMAP_THRESHOLD)
