"""When is a run killed? After any time, or while something is being written.

A moment is drawn before it comes, from a seed; none is drawn because it would be a good one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from faults.command import Command

_POLL_S = 0.002
_AIMED = 0.45
"""Share of the moments that something being written decides, and not the clock."""
PREFIX_FILE = "the prefix file"
_MOST_OF = {"a record": 10, "a checkpoint": 24, "an adapter": 4, PREFIX_FILE: 24}
"""The how manyeth of each may be aimed at; a run writes more."""
WRITES = tuple(_MOST_OF)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A moment in the life of a run.

    Attributes:
        seconds: after which it comes, where the clock decides.
        writing: what is being written then, where that decides.
        count: the how manyeth of these, from now.
    """

    seconds: float = 0.0
    writing: str | None = None
    count: int = 1

    def wait(self, command: Command, run: Path) -> bool:
        """Wait for it; return False where the command ended before."""
        if self.writing is not None:
            return _seen(command, run, self.writing, self.count)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if command.has_ended:
                return False
            time.sleep(min(0.02, max(0.0, end - time.monotonic())))
        return not command.has_ended


def draw(chance: Random, life: float, writes: Sequence[str]) -> Moment:
    """Return a moment in the life of a command.

    Args:
        chance: draws it.
        life: seconds that it lives when nobody disturbs it.
        writes: what it writes that a moment may be aimed at.
    """
    if chance.random() >= _AIMED:
        return Moment(seconds=chance.uniform(0.0, life))
    writing = chance.choice(writes)
    return Moment(writing=writing, count=chance.randint(1, _MOST_OF[writing]))


def left_behind(run: Path) -> str:
    """Return where a kill fell, by what lies in the run folder after it."""
    if not (run / "run.sqlite").exists():
        return "before there was a store"
    if (run / "run.sqlite-journal").exists():
        return "in the middle of a record"
    if any((run / "checkpoints").glob("pack-*/.step-*")):
        return "in the middle of a checkpoint"
    if any((run / "checkpoints").glob("pack-*/step-*")):
        return "in the middle of a pack"
    if (run / "prefix" / "frozen_prefix.states").exists():
        return "with a prefix file, before or between packs"
    return "elsewhere: starting up, scoring, ending"


def _seen(command: Command, run: Path, writing: str, count: int) -> bool:
    look = _LOOKS[writing]
    before, seen = look(run), 0
    while not command.has_ended:
        now = look(run)
        seen += now > before
        if seen >= count:
            return True
        before = now
        time.sleep(_POLL_S)
    return False


def _journal(run: Path) -> float:
    return float((run / "run.sqlite-journal").exists())


def _temporary(run: Path) -> float:
    return float(any((run / "checkpoints").glob("pack-*/.step-*")))


def _adapters(run: Path) -> float:
    return float(len(list((run / "adapters").glob("*"))))


def _prefix(run: Path) -> float:
    try:
        return float((run / "prefix" / "frozen_prefix.states").stat().st_size)
    except OSError:
        return 0.0


_LOOKS: dict[str, Callable[[Path], float]] = {
    "a record": _journal,
    "a checkpoint": _temporary,
    "an adapter": _adapters,
    PREFIX_FILE: _prefix,
}
