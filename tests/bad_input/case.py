"""What is one case of bad input: what is spoiled, what is asked, and what has to be said?"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], object]
"""Changes a folder that holds the world of `world.py`."""

STUDY = "study.yaml"
RUN = ("run", STUDY, "--out", "out")
PLAN = ("plan", STUDY)
SCORE = ("score", STUDY, "--method", "depth", "--json")
LONG = "a" * 300


def as_it_is(folder: Path) -> None:
    """Spoil nothing: what is wrong is what is asked."""


def nobody_else(folder: Path) -> AbstractContextManager[object]:
    """Nothing goes on beside the command."""
    return nullcontext()


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing that a person may get wrong."""

    name: str
    """What is wrong, in words."""
    asked: tuple[str, ...]
    """Arguments of `loratlas`, which starts in the spoiled folder."""
    says: str
    """What the one message holds; where it succeeds, what it prints. ``...`` is anything."""
    given: Spoil = as_it_is
    """What is spoiled before."""
    code: int = 2
    """Exit code: 2 the request is wrong, 1 the work failed, 0 the result is defined."""
    why: str = ""
    """Why exit 0 is right."""
    usage: bool = False
    """Whether the parser of the command line refuses it, which then shows how it is used."""
    alone: bool = False
    """Whether only a process of its own shows it; the short way leaves it out."""
    finished: bool = False
    """Whether the folder holds a finished run, in `run`."""
    unprivileged: bool = False
    """Whether it takes a person who may not write everywhere, unlike the superuser."""
    beside: Callable[[Path], AbstractContextManager[object]] = nobody_else
    """What goes on while the command runs."""
    leaves: tuple[str, ...] = ()
    """Globs of what may come into being or change; nothing else may."""
    seconds: float = 180
    """The longest that the command may take."""


def edit(*changes: tuple[str, str], file: str = STUDY) -> Spoil:
    """Replace text of a file, once each."""

    def spoil(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        (folder / file).write_text(text, encoding="utf-8")

    return spoil


def write(file: str, content: str | bytes) -> Spoil:
    """Write a file."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).write_bytes(data)


def write_json(file: str, data: Any) -> Spoil:
    """Write a file of JSON; NaN is written as Python does."""
    return write(file, json.dumps(data))


def edit_json(file: str, **changes: Any) -> Spoil:
    """Set keys of a JSON object in a file."""

    def spoil(folder: Path) -> None:
        data = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**data, **changes}), encoding="utf-8")

    return spoil


def remove(*files: str) -> Spoil:
    """Remove files."""

    def spoil(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """Spoil in several ways, one after another."""

    def spoil(folder: Path) -> None:
        for each in spoils:
            each(folder)

    return spoil
