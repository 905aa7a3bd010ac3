"""Which allocation comes of taking, again and again, the step that is worth most for its price?

A step lifts one item to any higher rank that still fits. Its price is what it takes of the budget
alone, or of all limits at the prices of the relaxation, where there are others; the better of the
two allocations is returned. With concave utilities and equal costs no other is better; in general
the gap to the bound tells how far that may be from the best.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.problem import Choice, Item, Problem
from loratlas.allocate.relaxation import Relaxation

# Of the budget as a whole, as a share of the utility: far below any price that matters.
_LEAST_PRICE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class _Step:
    """A step; the best comes first, and of equal ones that of the first item."""

    minus_density: float
    item: int
    option: int


def solve_greedy(problem: Problem, relaxation: Relaxation) -> Choice:
    """Return a choice that fits, by steps.

    Args:
        problem: whose first options fit together.
        relaxation: of the problem.
    """
    budget_alone = np.eye(len(problem.limits))[0]
    choices = [_climb(problem, budget_alone)]
    if len(problem.limits) > 1:
        # Where the budget does not bind its price is 0, and what takes of it alone would be free.
        least = _LEAST_PRICE * relaxation.bound / problem.limits[0]
        choices.append(_climb(problem, relaxation.prices + least * budget_alone))
    return max(choices, key=problem.utility)


def _climb(problem: Problem, prices: NDArray[np.float64]) -> Choice:
    chosen = [0] * len(problem.items)
    left = problem.limits - problem.takes(tuple(chosen))
    queue: list[_Step] = []

    def push(number: int) -> None:
        step = _best_step(problem.items[number], number, chosen[number], left, prices)
        if step is not None:
            heapq.heappush(queue, step)

    for number in range(len(problem.items)):
        push(number)
    while queue:
        step = heapq.heappop(queue)
        item = problem.items[step.item]
        takes = item.takes[:, step.option] - item.takes[:, chosen[step.item]]
        # What is left only shrinks: a step that no longer fits makes way for the next best.
        if (takes <= left).all():
            chosen[step.item] = step.option
            left = left - takes
        push(step.item)
    return tuple(chosen)


def _best_step(
    item: Item,
    number: int,
    chosen: int,
    left: NDArray[np.int64],
    prices: NDArray[np.float64],
) -> _Step | None:
    gains = item.gains[chosen + 1 :] - item.gains[chosen]
    takes = item.takes[:, chosen + 1 :] - item.takes[:, chosen, None]
    possible = (gains > 0) & (takes <= left[:, None]).all(axis=0)
    if not possible.any():
        return None
    density = np.where(possible, gains / (prices @ takes), -np.inf)
    best = int(density.argmax())
    return _Step(minus_density=-float(density[best]), item=number, option=chosen + 1 + best)
