"""What decides how a pack goes on after a step, and how does it go on from what was kept of it?

Rows, masks, dropout and the first values of new columns are drawn by seed, step and place, so that
nothing of them is kept. Nor are gradients: a step begins with none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loratlas.train.checkpoint import Keeper
from loratlas.train.packed.course import Course
from loratlas.train.packed.drive import Drive
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.slots import Slot
from loratlas.train.state import State


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Standing:
    """A pack between two steps.

    Attributes:
        slots: the adapters of each trial.
        courses: how each of them went.
        drive: what moves them.
        passes: how many rows go through the base at once.
    """

    slots: Sequence[Slot]
    courses: Sequence[Course]
    drive: Drive
    passes: Passes

    def resumed(self, keeper: Keeper | None) -> int:
        """Bring a pack that has not begun to where its newest checkpoint has it.

        Returns:
            optimiser steps done; 0 where there is no checkpoint.

        Raises:
            VerificationError: what was kept is not of this pack.
        """
        found = None if keeper is None else keeper.checkpoints.newest()
        if found is None:
            return 0
        step, folder = found
        self._restore(State.read(folder))
        return step

    def write(self, folder: Path) -> None:
        """Write the state of the pack to a folder."""
        self._state().write(folder)

    def _state(self) -> State:
        passes = {"limit": self.passes.limit, "num_halved": self.passes.num_halved}
        return State.joined(
            {
                "slots": _numbered([slot.state() for slot in self.slots]),
                "courses": _numbered([course.state() for course in self.courses]),
                "drive": self.drive.state(),
            },
            {"passes": passes},
        )

    def _restore(self, state: State) -> None:
        slots, courses = (state.part(name) for name in ("slots", "courses"))
        for number, (slot, course) in enumerate(zip(self.slots, self.courses, strict=True)):
            slot.restore(slots.part(str(number)))
            course.restore(courses.part(str(number)))
            if course.diverged is not None:
                slot.stop()
        self.drive.restore(state.part("drive"))
        passes = state.own["passes"]
        # Memory did not suffice for more then, or more is not asked for now.
        self.passes.limit = min(self.passes.limit, passes["limit"])
        self.passes.num_halved = passes["num_halved"]


def _numbered(states: Sequence[State]) -> State:
    return State.joined({str(number): state for number, state in enumerate(states)})
