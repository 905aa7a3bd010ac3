"""Which allocation is the best of all?

A branch-and-bound search (HiGHS, by `scipy.optimize.milp`) after a reduction: with the bound L of
the relaxation and the utility g of the greedy allocation, an option that lowers the bound by more
than L - g is in no allocation that is better than the greedy one, and is left out. Of the thousands
of options of a large model some hundred remain. Source of the reduction: Dembo and Hammer (1980),
as in Kellerer, Pferschy, Pisinger, Knapsack Problems (2004), chapter 11.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from loratlas.allocate.problem import Choice, Problem
from loratlas.allocate.program import program_of
from loratlas.allocate.relaxation import ROUNDING, Relaxation

_OPTIMAL = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A choice, and what no choice can exceed; equal to its utility where it is the best."""

    choice: Choice
    bound: float


def solve_exact(
    problem: Problem, relaxation: Relaxation, start: Choice, *, time_limit: float
) -> Solution:
    """Return the best choice, or the best that was found in time.

    Args:
        problem: without vain options.
        relaxation: of the problem.
        start: a choice that fits, such as the greedy one.
        time_limit: seconds for the search; with less time than it needs, the bound stays above the
            utility, and what is found depends on the machine.
    """
    reach = relaxation.bound - problem.utility(start) + ROUNDING * abs(relaxation.bound)
    kept = [relaxation.slack(item) <= reach for item in problem.items]
    reduced = replace(
        problem,
        items=tuple(item.keep(options) for item, options in zip(problem.items, kept, strict=True)),
    )
    found, proven, bound = _search(reduced, time_limit)
    # Options are counted within what was kept.
    choices = [start] + ([] if found is None else [_in_full(found, kept)])
    best = max(filter(problem.fits, choices), key=problem.utility)
    utility = problem.utility(best)
    bound = utility if proven else max(utility, min(relaxation.bound, bound))
    return Solution(choice=best, bound=bound)


def _search(problem: Problem, time_limit: float) -> tuple[Choice | None, bool, float]:
    """Return the best choice found, whether it is proven to be, and the bound of the search."""
    program = program_of(problem)
    if program is None:
        return (0,) * len(problem.items), True, np.inf
    found = optimize.milp(
        -program.gains,
        integrality=np.ones(len(program.gains)),
        bounds=optimize.Bounds(0, program.num_members),
        constraints=optimize.LinearConstraint(program.rows, ub=program.most),
        options={"mip_rel_gap": 0.0, "time_limit": time_limit},
    )
    dual = found.mip_dual_bound
    bound = np.inf if dual is None else program.base - float(dual) * program.scale
    if found.x is None:
        return None, False, bound
    counts = np.rint(found.x).astype(np.int64)
    return program.choice(counts, len(problem.items)), found.status == _OPTIMAL, bound


def _in_full(choice: Choice, kept: list[NDArray[np.bool_]]) -> Choice:
    """Return a choice among kept options as one among all."""
    return tuple(
        int(np.flatnonzero(options)[option]) for option, options in zip(choice, kept, strict=True)
    )
