"""What runs in a worker: the study, on a store and a terminal that are somewhere else."""

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, cast

from loratlas.errors import WorkError
from loratlas.study.circumstances import Circumstances
from loratlas.study.holding import Held
from loratlas.study.store import Store
from loratlas.study.workers.wire import HELD_BACK, STOP, Answer, Call, Ended, Target, Task


def work(calls: Connection, orders: Connection, task: Task) -> None:
    """Carry out a study for a supervisor; the target of a worker's process.

    Args:
        calls: where the supervisor is asked, and answers.
        orders: where it says when to stop; closed when it is gone.
        task: what there is to do.
    """
    # Ctrl-C reaches every process of a terminal, and a service manager ends all that it started;
    # the supervisor decides what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _left_to_the_supervisor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    desk, ear = _Desk(calls), _Ear(orders)
    calls.send(_carried_out(task, desk, ear))


def _left_to_the_supervisor(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. What this process starts begins with the usual answer again, unlike SIG_IGN."""


def _carried_out(task: Task, desk: "_Desk", ear: "_Ear") -> Ended:
    from loratlas.study.run import run_study  # loads torch: only here, in the worker
    from loratlas.train.checkpoint import StopRequested

    around = Circumstances(
        hold=desk.hold, stop=ear.asked_to_stop, deaths=task.deaths, owner=task.owner
    )
    try:
        run_study(task.study, task.folder, _Listener(desk), task.options, around)
    except StopRequested:
        return Ended(stopped=True)
    except Exception as error:  # whatever it is, the supervisor tells it
        return Ended(_sendable(error), traceback.format_exc())
    return Ended()


class _Ear:
    """Hears orders; ends the process when there is nobody left to give any."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders
        self._stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def asked_to_stop(self) -> bool:
        """Return whether the supervisor said so."""
        return self._stop.is_set()

    def _listen(self) -> None:
        try:
            while True:
                if self._orders.recv() == STOP:
                    self._stop.set()
        except (EOFError, OSError):
            os._exit(1)  # an orphan: nobody can store what it would find


class _Desk:
    """Asks the supervisor."""

    def __init__(self, calls: Connection) -> None:
        self._calls = calls
        self._turn = threading.Lock()

    def ask(self, target: Target, method: str, *positional: Any, **named: Any) -> Any:
        """Return what the supervisor answers, or raise what it raised."""
        with self._turn:
            self._calls.send(Call(target, method, positional, named))
            answer: Answer = self._calls.recv()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def tell(self, target: Target, method: str, *positional: Any) -> None:
        """Tell the supervisor something, without waiting."""
        with self._turn:
            self._calls.send(Call(target, method, positional, answered=False))

    @contextmanager
    def hold(self, identity: Mapping[str, Any]) -> Iterator[Held]:
        """Let the supervisor hold the run folder; it lets go when the run is over."""
        folder = self.ask("folder", "hold", dict(identity))
        yield Held(folder, cast(Store, _RemoteStore(self)))


class _RemoteStore:
    """The supervisor's store: each public method of `Store` is asked there."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Store, name):
            raise AttributeError(name)
        return partial(self._desk.ask, "store", name)


class _Listener:
    """The supervisor's listener."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def say(self, text: str) -> None:
        """Pass on a sentence."""
        self._desk.tell("listener", "say", text)

    def begin(self, what: str, num_steps: int) -> None:
        """Pass on a beginning."""
        self._desk.tell("listener", "begin", what, num_steps)

    def advance(self, num_steps: int = 1) -> None:
        """Pass on progress."""
        self._desk.tell("listener", "advance", num_steps)

    def end(self) -> None:
        """Pass on an end."""
        self._desk.tell("listener", "end")


def _sendable(error: Exception) -> Exception:
    """Return an error that another process can read, the same where it can."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkError(f"{type(error).__name__}: {error}")
    return error
