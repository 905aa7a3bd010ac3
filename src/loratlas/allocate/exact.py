"""Which allocation is the best of all?

Items are decided one after another. A state is one way to decide those so far: what it takes, and
what it is worth. With the prices λ of the relaxation, what the other items can add to it is at most

    λ · min(what is left of the limits, the most that they can take) + Σ max (gain - λ · takes)

A state whose bound is not above the best allocation known is given up, and so is one that takes as
much as another and is worth no more. Few states remain: with the budget alone some hundreds for
the 224 sites of an 8B model. Of more than a width, those with the highest bounds are kept. What is
found is the best of all where no state that was dropped had a higher bound; otherwise the width
grows, up to a last one. There is no clock in it: the result is the same on any machine.

Source: dynamic programming by reaching with bounds and dominance; Kellerer, Pferschy, Pisinger,
Knapsack Problems (2004), chapters 5 and 11. HiGHS, by `scipy.optimize.milp`, finds the same
allocations (as tests show) and takes up to a hundred times as long to prove them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.problem import Choice, Problem
from loratlas.allocate.relaxation import ROUNDING, Relaxation

_WIDTHS = (1_000, 10_000, 100_000)
_MOST_AT_ONCE = 4_000_000
"""States before any are given up; bounds the memory where an item has many options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A choice, and what no choice can exceed; equal to its utility where it is the best."""

    choice: Choice
    bound: float


def solve_exact(problem: Problem, relaxation: Relaxation, start: Choice) -> Solution:
    """Return the best choice, or the best that was found among the states of the last width.

    Args:
        problem: without vain options.
        relaxation: of the problem.
        start: a choice that fits, such as the greedy one.
    """
    best, missed = start, relaxation.bound
    for width in _WIDTHS:
        found = _search(problem, relaxation, best, width)
        best, missed = found.choice, min(missed, found.missed)
        utility = problem.utility(best)
        if missed <= utility + ROUNDING * abs(relaxation.bound):
            return Solution(choice=best, bound=utility)
    return Solution(choice=best, bound=missed)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """The best choice known after a search, and the highest bound of a state that was dropped."""

    choice: Choice
    missed: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Stage:
    """One item to decide, and what is known of those after it; all beside its first option.

    Attributes:
        number: of the item in the problem.
        options: those that a better choice could hold, shape (options,).
        gains: what these add, shape (options,).
        takes: what these take more, shape (options, limits).
        later_net: the most that later items add, net of what they take at the prices.
        later_takes: the most that later items take, shape (limits,).
    """

    number: int
    options: NDArray[np.intp]
    gains: NDArray[np.float64]
    takes: NDArray[np.int64]
    later_net: float
    later_takes: NDArray[np.int64]


def _search(problem: Problem, relaxation: Relaxation, best: Choice, width: int) -> _Found:
    """Decide the items one after another, with at most so many states.

    Args:
        problem: without vain options.
        relaxation: of the problem.
        best: the best choice known.
        width: most states after an item.
    """
    floor = problem.utility(best) + ROUNDING * abs(relaxation.bound)
    if relaxation.bound <= floor:
        return _Found(choice=best, missed=-np.inf)
    firsts = (0,) * len(problem.items)
    left = problem.limits - problem.takes(firsts)
    taken, gains = np.zeros((1, len(left)), dtype=np.int64), np.array([problem.utility(firsts)])
    stages = list(_stages(problem, relaxation, floor))
    width = min(width, _MOST_AT_ONCE // max(len(stage.options) for stage in stages))
    missed, trail = -np.inf, []
    for stage in stages:
        taken = (taken[:, None, :] + stage.takes).reshape(-1, len(left))
        gains = (gains[:, None] + stage.gains).ravel()
        can_take = np.minimum(left - taken, stage.later_takes)
        bounds = gains + stage.later_net + can_take @ relaxation.prices
        live = np.flatnonzero((taken <= left).all(axis=1) & (bounds > floor))
        live = live[_undominated(taken[live], gains[live], left - stage.later_takes)]
        if len(live) > width:
            ranked = live[np.argsort(-bounds[live], kind="stable")]
            missed = max(missed, float(bounds[ranked[width]]))
            live = np.sort(ranked[:width])
        if not len(live):
            return _Found(choice=best, missed=missed)
        taken, gains = taken[live], gains[live]
        trail.append(live.astype(np.int32))
    return _Found(choice=_followed(stages, trail, int(gains.argmax())), missed=missed)


def _stages(problem: Problem, relaxation: Relaxation, floor: float) -> Iterator[_Stage]:
    """Yield the items, those of one cap together: when they are decided, the cap is done with."""

    def limits_of(number: int) -> tuple[bool, ...]:
        takes = problem.items[number].takes
        return tuple(takes[1:, -1] > takes[1:, 0])

    order = sorted(range(len(problem.items)), key=limits_of)
    nets = [relaxation.net(item) for item in problem.items]
    above_first = [item.takes - item.takes[:, :1] for item in problem.items]
    later_net = sum(float(net.max() - net[0]) for net in nets)
    later_takes = np.sum([takes[:, -1] for takes in above_first], axis=0)
    for number in order:
        item, net = problem.items[number], nets[number]
        later_net -= float(net.max() - net[0])
        later_takes = later_takes - above_first[number][:, -1]
        kept = np.flatnonzero(relaxation.bound - (net.max() - net) > floor)
        yield _Stage(
            number=number,
            options=kept,
            gains=item.gains[kept] - item.gains[0],
            takes=above_first[number][:, kept].T,
            later_net=later_net,
            later_takes=later_takes,
        )


def _undominated(
    taken: NDArray[np.int64], gains: NDArray[np.float64], room: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the states that no other makes useless, by index.

    Another does so if it takes as much of the other limits, no more of the first, and is worth as
    much or more. A limit within which all states stay whatever follows does not count.

    Args:
        taken: shape (states, limits).
        gains: shape (states,).
        room: how much may be taken so that whatever follows fits, shape (limits,).
    """
    counted = np.where((taken > room).any(axis=0), taken, 0)
    order = np.lexsort((-gains, *counted.T))
    ordered = counted[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (ordered[1:, 1:] != ordered[:-1, 1:]).any(axis=1)
    # As whole numbers, so that a group lies above those before it without rounding.
    heights = np.unique(gains, return_inverse=True)[1][order] + np.cumsum(begins) * len(order)
    highest = np.maximum.accumulate(heights)
    better = np.ones(len(order), dtype=bool)
    better[1:] = heights[1:] > highest[:-1]
    return np.sort(order[better])


def _followed(stages: Sequence[_Stage], trail: Sequence[NDArray[np.int32]], state: int) -> Choice:
    """Return the choice that led to a state after the last stage."""
    chosen = [0] * len(stages)
    for stage, live in zip(reversed(stages), reversed(trail), strict=True):
        state, option = divmod(int(live[state]), len(stage.options))
        chosen[stage.number] = int(stage.options[option])
    return tuple(chosen)
