"""Under which circumstances is a study carried out: by whom, until when, after which deaths?"""

import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loratlas.study.holding import Hold

MOST_DEATHS = 3
"""How often a process may end under the same work before that work has failed."""


def never() -> bool:
    """Return that nobody asks for a stop."""
    return False


def new_owner() -> str:
    """Return a name for whoever begins trials now: another one at each call."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What surrounds a run, beside its study and its options.

    Attributes:
        hold: holds the run folder.
        stop: whether a person asked for a stop; asked between steps.
        deaths: what ended the processes that had a trial under way, by its digest.
        owner: whose attempts at trials these are.
    """

    hold: Hold
    stop: Callable[[], bool] = never
    deaths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owner: str = field(default_factory=new_owner)
