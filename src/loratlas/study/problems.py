"""How are the faults of a study file said: one line each, all of them at once?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from loratlas.errors import NotYetError, StudyError
from loratlas.printable import printable

MAX_PROBLEMS = 20
_MAX_SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One fault of a study file."""

    line: int
    """Line of the file, counted from 1."""
    key: str
    """Dotted key, such as placements.full.rank; empty for the file itself."""
    text: str
    """What was given and what is allowed."""
    not_yet: bool = False
    """Whether the request is right and only this version does not serve it."""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return printable(f"{self.line}: {key}{self.text}")


def visible(text: str) -> str:
    """Return text from a file as it may stand in a message: printable, and not long."""
    safe = printable(text)
    return safe if len(safe) <= _MAX_SHOWN else safe[: _MAX_SHOWN - 3] + "..."


def raise_problems(path: Path, problems: Iterable[Problem]) -> NoReturn:
    """Raise one error that lists the problems by line.

    Raises:
        NotYetError: every problem is a request that a later version will serve.
        StudyError: at least one problem is a fault.
    """
    ordered = sorted(problems, key=lambda problem: problem.line)
    lines = [f"{path}:{problem}" for problem in ordered[:MAX_PROBLEMS]]
    if len(ordered) > MAX_PROBLEMS:
        lines.append(f"{path}: and {len(ordered) - MAX_PROBLEMS} more")
    kind = NotYetError if all(problem.not_yet for problem in ordered) else StudyError
    raise kind("\n".join(lines))
