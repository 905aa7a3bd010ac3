"""How a run's progress looks at a terminal; without one it is silent but for its sentences."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loratlas.cli.console import SafeConsole
from loratlas.printable import printable
from loratlas.redaction import redacted


class TerminalListener:
    """Draws a bar with an estimate on stderr when that is a terminal."""

    def __init__(self) -> None:
        self._console = SafeConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print one sentence."""
        self._console.print(printable(redacted(text), keep="\n"), markup=False)

    def begin(self, what: str, num_steps: int) -> None:
        """Start a bar."""
        self._task = self._bar.add_task(what, total=num_steps)

    def advance(self, num_steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, num_steps)

    def end(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
