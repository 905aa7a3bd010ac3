"""How good can an allocation be at most, and what is one more unit of the budget worth?

The linear relaxation lets a site have parts of several ranks. Its dual prices λ, one for each
limit, give the bound of Lagrange, which holds for any λ >= 0 and so whatever a solver's tolerance:

    utility of any allocation  <=  λ · limits + Σ over items of max over options (gain - λ · takes)

The price of the budget is the shadow price. Source: Kellerer, Pferschy, Pisinger, Knapsack Problems
(2004), chapter 11.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from loratlas.allocate.problem import Item, Problem
from loratlas.errors import WorkError

# What sums of floats may be wrong by, relative to a utility.
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Relaxation:
    """What the relaxed problem says.

    Attributes:
        prices: utility of one more unit of each limit, at least 0, shape (limits,).
        bound: no allocation has a higher utility.
    """

    prices: NDArray[np.float64]
    bound: float

    def net(self, item: Item) -> NDArray[np.float64]:
        """Return the gain of each option less what it takes at these prices, shape (options,)."""
        return np.asarray(item.gains - self.prices @ item.takes)


def relax(problem: Problem) -> Relaxation:
    """Solve the linear relaxation.

    Args:
        problem: without vain options, so that every option after the first adds something.

    Raises:
        WorkError: the solver did not.
    """
    prices = _prices(problem)
    best = sum(float((item.gains - prices @ item.takes).max()) for item in problem.items)
    return Relaxation(prices=prices, bound=float(prices @ problem.limits) + best)


def _prices(problem: Problem) -> NDArray[np.float64]:
    """Return the dual prices of the limits.

    A variable is the part of an item that takes an option instead of its first one. Gains count in
    units of the largest, and a limit in the greatest common divisor of what variables take of it.
    """
    counts = [len(item.ranks) - 1 for item in problem.items]
    if not any(counts):
        return np.zeros(len(problem.limits))
    gains = np.concatenate([item.gains[1:] - item.gains[0] for item in problem.items])
    takes = np.concatenate(
        [item.takes[:, 1:] - item.takes[:, :1] for item in problem.items], axis=1
    )
    left = problem.limits - problem.takes((0,) * len(problem.items))
    units, scale = np.maximum(np.gcd.reduce(takes, axis=1), 1), float(gains.max())

    owners = np.repeat(np.arange(len(counts)), counts)
    shape = (len(counts), len(owners))
    one_of_each = sparse.csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))), shape)
    rows = sparse.vstack([sparse.csr_array(takes / units[:, None]), one_of_each])
    found = optimize.linprog(
        -gains / scale,
        A_ub=cast(Any, rows),  # the stubs do not know that rows may be sparse
        b_ub=np.concatenate([left / units, np.ones(len(counts))]),
        bounds=(0, None),
        method="highs-ipm",  # ten times as fast here as the simplex method, to the same vertex
    )
    if found.status != 0:
        raise WorkError(f"the linear relaxation was not solved: {found.message}")
    duals = -found.ineqlin.marginals[: len(problem.limits)]
    return np.asarray(np.maximum(duals, 0.0) * scale / units)
