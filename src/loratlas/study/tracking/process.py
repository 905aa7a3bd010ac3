"""How a tracker's package is kept at arm's length: a process with a limit on every trial.

The process imports the package once and is used for trial after trial. It stands in a session
of its own, so that Ctrl-C does not reach it, and so that ending it ends what it started.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Timer

from loratlas.study.tracking.tracked import TrackedTrial
from loratlas.study.tracking.trackers import Tracker

_WORKER = "loratlas.study.tracking.worker"
_GRACE_S = 10.0
"""For a process that has nothing left to send, or that is to end itself."""


class NoAnswerError(Exception):
    """The process took too long, or ended."""


class TrackerProcess:
    """A process that sends trials to one tracker; made when the first trial is sent.

    Args:
        name: the tracker.
        folder: its folder inside the run folder.
        environment: all variables of the process.
        limit_s: seconds that one trial may take, the import of the package included.
    """

    def __init__(
        self, name: Tracker, folder: Path, environment: Mapping[str, str], limit_s: float
    ) -> None:
        # -P: a file wandb.py where the command is given must not pass for the package.
        self._command = [sys.executable, "-P", "-m", _WORKER, name, str(folder)]
        self._command.append(str(limit_s + _GRACE_S))
        self._environment = dict(environment)
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._ended_because: str | None = None

    def send(self, trial: TrackedTrial) -> str | None:
        """Send a trial and wait; return what went wrong with it.

        Raises:
            NoAnswerError: nothing can be sent through this process any more.
        """
        process = self._running()
        timer = Timer(self._limit_s, self.end, [f"no answer within {self._limit_s:g} seconds"])
        timer.start()
        answer = b""
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(trial)).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:  # the process ended before it had read the trial
            pass
        finally:
            timer.cancel()
        if not answer.endswith(b"\n"):
            raise NoAnswerError(self._why())
        error: str | None = json.loads(answer)["error"]
        return error

    def close(self) -> None:
        """Let the process end, and end it if it does not."""
        if self._process is None:
            return
        with self._process as process:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self.end("it had nothing left to send")

    def end(self, why: str) -> None:
        """End the process at once, from any thread."""
        with self._lock:
            self._ended_because = why
            if self._process is not None and self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended_because is not None:
                raise NoAnswerError(self._ended_because)
            if self._process is None:
                try:
                    self._process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        env=self._environment,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise NoAnswerError(f"no process: {error.strerror}") from error
            return self._process

    def _why(self) -> str:
        assert self._process is not None
        if self._ended_because is not None:
            return self._ended_because
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        code = self._process.returncode
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit status {code}"
