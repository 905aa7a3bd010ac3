"""Who watches over a run: holds its folder, writes its store, and outlives the process that works?

The supervisor loads no model and no torch, so what kills a worker (memory, a fault of a library, a
signal) leaves it alive. A worker that dies costs one attempt of the trials that it had under way;
another one takes them up from their last checkpoint.
"""

import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from types import FrameType
from typing import Any, Self

from loratlas.errors import WorkError
from loratlas.study.circumstances import MOST_DEATHS, new_owner
from loratlas.study.folder import check_identity
from loratlas.study.holding import Held, held
from loratlas.study.options import RunOptions
from loratlas.study.progress import Listener
from loratlas.study.spec import StudySpec
from loratlas.study.workers.wire import HELD_BACK, STOP, Answer, Call, Ended, Task
from loratlas.study.workers.worker import work

_OUTSIDE = ""
"""Under which the deaths stand that happened with no trial under way."""


_LAST_WAIT_S = 30.0
"""How long a worker that has said its last word may take to end."""


class StoppedError(WorkError):
    """A person stopped the run; the same command goes on."""


def supervise(study: StudySpec, folder: Path, listener: Listener, options: RunOptions) -> Path:
    """Carry out what is missing of a study, in a process of its own.

    SIGINT or SIGTERM once: the step is finished and kept, then the run ends. Once more: at once.

    Args:
        study: the study.
        folder: the run folder.
        listener: hears of it.
        options: what a person says about the run, beside the study.

    Returns:
        the run folder; another than was given where a new version began.

    Raises:
        LoratlasError: as for `run_study`.
        StoppedError: a person stopped the run.
        WorkError: the process that works was ended again and again.
    """
    with _Supervisor(study, folder, listener, options) as supervisor:
        supervisor.run()
        return supervisor.folder


class _Supervisor:
    """Watches over the workers of one run."""

    def __init__(
        self, study: StudySpec, folder: Path, listener: Listener, options: RunOptions
    ) -> None:
        self.folder = folder
        self._study = study
        self._listener = listener
        self._options = options
        self._open = ExitStack()
        self._held: Held | None = None
        self._deaths: dict[str, list[str]] = defaultdict(list)
        self._worker: _Worker | None = None
        self._owner = ""
        self._stops = 0
        self._heard, self._hears = multiprocessing.Pipe(duplex=False)

    def __enter__(self) -> Self:
        self._open.enter_context(_signals(lambda: self._hears.send_bytes(b"!")))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self) -> None:
        """Start workers until one has done what there is to do.

        Raises:
            LoratlasError: what a worker ended with.
            StoppedError: a person stopped the run.
            WorkError: workers died too often with no trial under way.
        """
        while True:
            ended = self._served()
            if self._stops and (ended is None or ended.stopped):
                raise StoppedError(self._stopped())
            if ended is None:
                self._note_death()
                continue
            if ended.error is not None:
                raise _with_trace(ended)
            return

    def _served(self) -> Ended | None:
        """Serve one worker to its end; None when it died."""
        self._owner = new_owner()
        task = Task(
            study=self._study,
            folder=self.folder,
            options=self._options,
            deaths=dict(self._deaths),
            owner=self._owner,
        )
        with _Worker(task) as self._worker:
            while True:
                for ready in wait([self._worker.calls, self._heard]):
                    if ready is self._heard:
                        self._heard.recv_bytes()
                        self._stop()
                        continue
                    message = self._worker.heard()
                    if not isinstance(message, Call):
                        return message
                    answer = self._answer(message)
                    if message.answered:
                        self._worker.answer(answer)

    def _answer(self, call: Call) -> Answer:
        try:
            return Answer(getattr(self._target(call), call.method)(*call.positional, **call.named))
        except Exception as error:  # the worker asked; it decides what that means
            return Answer(error=error)

    def _target(self, call: Call) -> Any:
        if call.target == "listener":
            return self._listener
        if call.target == "folder":
            return self
        assert self._held is not None, "a folder is held before its store is asked"
        return self._held.store

    def hold(self, identity: Mapping[str, Any]) -> Path:
        """Hold the run folder; a worker asks for it once its request is found right."""
        if self._held is None:
            new_version = self._options.new_version
            self._held = self._open.enter_context(
                held(self.folder, self._study, identity, new_version=new_version)
            )
            self.folder = self._held.folder
        else:
            check_identity(self.folder, identity)  # its files may have changed since
        return self.folder

    def _note_death(self) -> None:
        """Put down whose attempt a death has cost.

        Raises:
            WorkError: workers died too often with no trial under way.
        """
        assert self._worker is not None
        cause, trials = self._worker.cause, self._under_way
        if trials:
            self._deaths.pop(_OUTSIDE, None)  # it came further than before
        for trial in trials or [_OUTSIDE]:
            self._deaths[trial].append(cause)
        self._listener.end()
        if len(self._deaths[_OUTSIDE]) >= MOST_DEATHS:
            raise WorkError(
                f"the process that works was ended {MOST_DEATHS} times with no trial under way: "
                f"{cause}; what was stored is kept, and the same command goes on"
            )
        lose = "1 trial loses" if len(trials) == 1 else f"{len(trials)} trials lose"
        lost = f"{lose} an attempt" if trials else "no trial was under way"
        self._listener.say(f"the process that works was ended: {cause}; {lost}; starting another")

    @property
    def _under_way(self) -> list[str]:
        """The trials that the worker has begun and not ended."""
        return [] if self._held is None else self._held.store.under_way(self._owner)

    def _stop(self) -> None:
        """Do what SIGINT or SIGTERM asks for."""
        assert self._worker is not None
        self._stops += 1
        if self._stops == 1 and self._under_way:
            self._listener.say("stopping after this step; once more stops at once")
            self._worker.stop()
        else:
            self._worker.kill()

    def _stopped(self) -> str:
        self._listener.end()
        if self._held is None:
            return "stopped; nothing had begun"
        with_state = self._stops == 1 and self._under_way
        state = " and the state of those under way" if with_state else ""
        return (
            f"stopped; finished trials{state} are kept in {self.folder}, the same command goes on"
        )


class _Worker:
    """A process that works, for as long as it is the context."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self.calls, self._its_calls = context.Pipe()
        self._its_orders, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(self._its_calls, self._its_orders, task))

    def __enter__(self) -> Self:
        ensure_running()  # its own start would let signals through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # The worker's copies are the only ones now, so that its death ends the line.
        self._its_calls.close()
        self._its_orders.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
        self._process.join(_LAST_WAIT_S)
        self.kill()  # what a library leaves behind may keep a process from its end
        self._process.join()
        self._orders.close()
        self.calls.close()

    def heard(self) -> Call | Ended | None:
        """Return what the worker says next; None when it is dead."""
        try:
            message: Call | Ended = self.calls.recv()
        except (EOFError, OSError):
            return None
        return message

    def answer(self, answer: Answer) -> None:
        """Answer a call; a worker that died meanwhile is noticed at its next word."""
        with suppress(OSError):
            self.calls.send(answer)

    def stop(self) -> None:
        """Ask it to finish its step, keep what there is, and end."""
        with suppress(OSError):
            self._orders.send(STOP)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    @property
    def cause(self) -> str:
        """What ended it, in words."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        often = " (often for lack of memory)" if -code == signal.SIGKILL else ""
        return f"{signal.Signals(-code).name}{often}"


@contextmanager
def _signals(tell: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call a function for a while, and do nothing else."""

    def hear(_number: int, _frame: FrameType | None) -> None:
        tell()

    before = {each: signal.signal(each, hear) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _with_trace(ended: Ended) -> Exception:
    """Return what a worker ended with; where it is no error of ours, with its place there."""
    assert ended.error is not None
    ended.error.add_note(f"in the process that works:\n{ended.trace}")
    return ended.error
