"""How does one trial of a pack go: its losses, its time, and whether it diverged?"""

import math

from loratlas.train.outcome import Fit, Trajectory
from loratlas.train.reference import DivergedError, diverged
from loratlas.train.state import State


class Course:
    """How one trial goes.

    Attributes:
        losses: of the optimiser steps so far, nats per scored token.
        seconds: wall time of each of them.
        diverged: what ended the trial before its last step, None while it goes on.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.diverged: DivergedError | None = None

    def add(self, loss: float, step: int, total: int) -> None:
        """Take the loss of a step; one that is no number ends the trial."""
        if math.isfinite(loss):
            self.losses.append(loss)
        else:
            self.diverged = diverged(loss, step, total)

    def fit(self, trajectory: Trajectory | None) -> Fit:
        """Return what is told of a trial that reached its end."""
        return Fit(
            losses=tuple(self.losses),
            step_seconds=tuple(self.seconds),
            trajectory=trajectory,
        )

    def state(self) -> State:
        """Return how it went so far."""
        ended = None if self.diverged is None else str(self.diverged)
        return State(
            plain={"losses": list(self.losses), "seconds": list(self.seconds), "diverged": ended}
        )

    def restore(self, state: State) -> None:
        """Take what went before as this trial's."""
        self.losses = list(state.plain["losses"])
        self.seconds = list(state.plain["seconds"])
        ended = state.plain["diverged"]
        self.diverged = None if ended is None else DivergedError(ended)
