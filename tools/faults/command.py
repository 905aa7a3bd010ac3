"""A `loratlas` command as a process of its own: started, watched, signalled, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

COMMAND = (sys.executable, "-m", "loratlas")
OURS = "loratlas: "
_POLL_S = 0.004
_LONGEST_S = 240.0


class MissedError(Exception):
    """A moment that a fault needs did not come, or a command did not end."""


class Command:
    """A running command; leaving it as a context ends what is left of it.

    Args:
        arguments: of `loratlas`.
        folder: where it starts, and where what it prints is kept.
        environment: all of its variables.
        prepare: called in the new process before the command begins.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        number = len(list(folder.glob("terminal-*.err")))
        self._printed = folder / f"terminal-{number}.out"
        self._said = folder / f"terminal-{number}.err"
        with self._printed.open("wb") as out, self._said.open("wb") as err:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # what a terminal sends to all of them reaches no one else
                preexec_fn=prepare,
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def has_ended(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    @property
    def said(self) -> list[str]:
        """The lines on standard error so far."""
        return self._said.read_text(encoding="utf-8", errors="replace").splitlines()

    @property
    def printed(self) -> str:
        """What stands on standard output so far."""
        return self._printed.read_text(encoding="utf-8", errors="replace")

    @property
    def message(self) -> str:
        """The one message that the command ended with, or else its last line."""
        ours = [line for line in self.said if line.startswith(OURS)]
        return (ours or self.said or [""])[-1]

    def wait(self, seconds: float = _LONGEST_S) -> int:
        """Return the exit status.

        Raises:
            MissedError: it did not end in time.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise MissedError(f"still running after {seconds:g} s") from None

    def until(self, has_come: Callable[[], bool], what: str, seconds: float = _LONGEST_S) -> None:
        """Wait for a moment in the life of the command.

        Raises:
            MissedError: the command ended before it, or it did not come in time.
        """
        end = time.monotonic() + seconds
        while not has_come():
            if self.has_ended and not has_come():
                raise MissedError(f"ended before {what}: {self.message}")
            if time.monotonic() > end:
                raise MissedError(f"{what}: not within {seconds:g} s")
            time.sleep(_POLL_S)

    def worker(self) -> psutil.Process | None:
        """Return the process that works, if it has been started."""
        return next(iter(started_by(self._process.pid)), None)

    def the_worker(self, *, but: psutil.Process | None = None) -> psutil.Process:
        """Wait for the process that works, or for the one after another."""
        self.until(lambda: self.worker() not in (None, but), "a process that works")
        found = self.worker()
        if found is None:
            raise MissedError("the process that works is gone")
        return found

    def family(self) -> list[psutil.Process]:
        """Return all processes that the command has started, and theirs."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send(self, number: int) -> None:
        """Send a signal to the command alone."""
        self._process.send_signal(number)

    def send_all(self, number: int) -> None:
        """Send a signal to the command and what it has started, as Ctrl-C at a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def started_by(pid: int) -> list[psutil.Process]:
    """Return the Python processes that a process has started to work for it."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "--multiprocessing-fork" in child.cmdline():
                    found.append(child)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that only waits to be counted does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def seconds_until_gone(processes: Sequence[psutil.Process], most: float = 10.0) -> float | None:
    """Return how long it took until processes had ended; None where some did not."""
    began = time.monotonic()
    while any(map(is_alive, processes)):
        if time.monotonic() - began > most:
            return None
        time.sleep(0.02)
    return time.monotonic() - began
