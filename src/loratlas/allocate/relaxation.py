"""How good can an allocation be at most, and what is one more unit of the budget worth?

The linear relaxation lets a site have parts of several ranks. Its dual prices λ, one for each
limit, give the bound of Lagrange, which holds for any λ >= 0 and so whatever a solver's tolerance:

    utility of any allocation  <=  λ · limits + Σ over items of max over options (gain - λ · takes)

The price of the budget is the shadow price. Source: Kellerer, Pferschy, Pisinger, Knapsack Problems
(2004), chapter 11.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from loratlas.allocate.problem import Item, Problem
from loratlas.allocate.program import program_of
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

    def slack(self, item: Item) -> NDArray[np.float64]:
        """Return by how much each option of an item lowers the bound, shape (options,)."""
        net = item.gains - self.prices @ item.takes
        return np.asarray(net.max() - net)


def relax(problem: Problem) -> Relaxation:
    """Solve the linear relaxation.

    Raises:
        WorkError: the solver did not.
    """
    prices = _prices(problem)
    best = sum(float((item.gains - prices @ item.takes).max()) for item in problem.items)
    return Relaxation(prices=prices, bound=float(prices @ problem.limits) + best)


def _prices(problem: Problem) -> NDArray[np.float64]:
    program = program_of(problem)
    if program is None:
        return np.zeros(len(problem.limits))
    found = optimize.linprog(
        -program.gains, A_ub=program.rows, b_ub=program.most, bounds=(0, None), method="highs"
    )
    if found.status != 0:
        raise WorkError(f"the linear relaxation was not solved: {found.message}")
    duals = -found.ineqlin.marginals[: len(problem.limits)]
    return np.asarray(np.maximum(duals, 0.0) * program.scale / program.divisors)
