"""What do a worker and its supervisor say to each other?

The worker asks, the supervisor answers: the store, the run folder's lock and the terminal are the
supervisor's alone. In the other direction goes one word, "stop"; and the end of that line tells a
worker that its supervisor is gone.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loratlas.study.options import RunOptions
from loratlas.study.spec import StudySpec

STOP = "stop"
"""The one order: finish the step, keep what there is, and end."""

HELD_BACK = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that a worker does not get before it is ready for them."""

Target = Literal["store", "listener", "folder"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is started for.

    Attributes:
        study: what is carried out.
        folder: the run folder, as a person gave it.
        options: what a person says about the run.
        deaths: what ended the processes that had a trial under way, by its digest.
        owner: under which name it begins trials.
    """

    study: StudySpec
    folder: Path
    options: RunOptions
    deaths: Mapping[str, Sequence[str]]
    owner: str


@dataclass(frozen=True, slots=True)
class Call:
    """A worker asks for something to be done.

    Attributes:
        target: what it is asked of.
        method: its name there.
        positional: arguments.
        named: arguments.
        answered: whether the worker waits for an answer.
    """

    target: Target
    method: str
    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: a value, or what was raised."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker has done what it could.

    Attributes:
        error: what it ended with, None when all is done.
        trace: where in the worker that was raised.
        stopped: whether it ended because it was asked to.
    """

    error: Exception | None = None
    trace: str = ""
    stopped: bool = False
