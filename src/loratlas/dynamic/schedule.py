"""How does a budget fall while a trial trains, and at which steps is something decided?

The cubic schedule of AdaLoRA (arXiv 2303.10512, equation 12; `RankAllocator.budget_schedule` in
``peft/tuners/adalora/layer.py``), in whole numbers: parameters, or ranks as in the paper. No torch.
"""

from dataclasses import dataclass
from typing import Self

from loratlas.errors import PlacementError

# An average with β = 0.85, as the policies keep it, has a memory of 1 / (1 - β) steps: new columns
# are not judged on less.
_FEWEST_STEPS = 7
_MOST_INTERVALS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A budget over optimiser steps, which are counted from 1.

    Attributes:
        start: budget until the end of the warm-up, b_0.
        end: budget from the last decision on, b_T; it may be above `start`.
        total_steps: optimiser steps of the training, T.
        warmup: steps before the budget moves, t_i.
        final: steps after the last decision, t_f.
        interval: steps between two decisions, ΔT. They are counted back from the last decision, so
            that none of them is short; an interval wider than the window leaves that one decision.
    """

    start: int
    end: int
    total_steps: int
    warmup: int
    final: int
    interval: int

    def __post_init__(self) -> None:
        if self.warmup + self.final >= self.total_steps:
            raise PlacementError(
                f"the schedule is longer than the training: of {self.total_steps} optimiser steps "
                f"warmup takes {self.warmup} and final {self.final}, which leaves none to decide "
                f"in; together they are at most {self.total_steps - 1}"
            )

    @classmethod
    def planned(
        cls,
        *,
        start: int,
        end: int,
        total_steps: int,
        warmup: float,
        final: float,
        interval: float | None = None,
    ) -> Self:
        """Return the schedule of a training.

        Args:
            start: budget at first.
            end: budget at last.
            total_steps: optimiser steps of the training.
            warmup: below 1 a share of all steps, from 1 on a number of steps.
            final: as `warmup`.
            interval: as `warmup`; None takes one 40th of the steps, and at least 7.

        Raises:
            PlacementError: the schedule is longer than the training.
        """
        usual = max(_FEWEST_STEPS, total_steps // _MOST_INTERVALS)
        return cls(
            start=start,
            end=end,
            total_steps=total_steps,
            warmup=_steps(warmup, total_steps),
            final=_steps(final, total_steps),
            interval=usual if interval is None else max(1, _steps(interval, total_steps)),
        )

    @property
    def last(self) -> int:
        """The step after which the last decision falls; nothing moves from then on."""
        return self.total_steps - self.final

    def decides(self, step: int) -> bool:
        """Whether a decision falls after this step."""
        return self.warmup < step <= self.last and (self.last - step) % self.interval == 0

    def left(self, step: int) -> float:
        """Return which share of the time between warm-up and last decision is left."""
        return (self.last - self._inside(step)) / (self.last - self.warmup)

    def cubic(self, step: int) -> int:
        """Return b_T + (b_0 - b_T)(1 - (t - t_i) / (T - t_i - t_f))³, rounded down.

        In whole numbers, so that it is the same everywhere.
        """
        window = self.last - self.warmup
        return (
            self.end + (self.start - self.end) * (self.last - self._inside(step)) ** 3 // window**3
        )

    def budget(self, step: int) -> int:
        """Return the budget in force after a step: the cubic's value at the decision before."""
        if step >= self.last:
            return self.end
        ahead = -(-(self.last - step) // self.interval)
        return self.cubic(self.last - ahead * self.interval)

    def _inside(self, step: int) -> int:
        return min(max(step, self.warmup), self.last)


def _steps(length: float, total_steps: int) -> int:
    return int(length * total_steps) if length < 1 else int(length)
