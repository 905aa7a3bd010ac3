"""How a run tells whoever started it where it stands."""

from typing import Protocol


class Listener(Protocol):
    """Hears of the progress of a run; the command line draws it, a test records it."""

    def say(self, text: str) -> None:
        """Hear one plain sentence."""

    def begin(self, what: str, num_steps: int) -> None:
        """Hear that work of this many optimiser steps (or other units) begins."""

    def advance(self, num_steps: int = 1) -> None:
        """Hear that some of it is done."""

    def end(self) -> None:
        """Hear that it is over."""


class Silent:
    """A listener that keeps everything to itself."""

    def say(self, text: str) -> None:
        """Ignore a sentence."""

    def begin(self, what: str, num_steps: int) -> None:
        """Ignore a beginning."""

    def advance(self, num_steps: int = 1) -> None:
        """Ignore progress."""

    def end(self) -> None:
        """Ignore an end."""
