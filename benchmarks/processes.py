"""How is a command run to its end, and what does it take?"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SHOWN_LINES = 12


class SideError(Exception):
    """A side failed, or the sides did not do the same work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """What a process took: wall seconds, and its resident set at the fullest, in bytes."""

    seconds: float
    peak_bytes: int


def run_process(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    threads: int,
    variables: Mapping[str, str] | None = None,
) -> Process:
    """Run a command to its end; what it says goes to ``stdout.txt`` and ``stderr.txt``.

    Raises:
        SideError: it ended with another status than 0; the end of what it said is told.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **(variables or {}),
    }
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=errors, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for already
    if process.returncode != 0:
        raise SideError(f"{name} ended with status {process.returncode}:\n{_last_words(folder)}")
    return Process(seconds=seconds, peak_bytes=usage.ru_maxrss * 1024)


def _last_words(folder: Path) -> str:
    said = (
        (folder / file).read_text(encoding="utf-8", errors="replace").rstrip()
        for file in ("stderr.txt", "stdout.txt")
    )
    return "\n".join(next(filter(None, said), "it said nothing").splitlines()[-_SHOWN_LINES:])
