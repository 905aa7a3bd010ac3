"""What is an allocation: a placement, and how near it is to the best?"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from loratlas.allocate.budget import Budget
from loratlas.placement.placement import Placement

Solver = Literal["greedy", "exact", "proportional"]
SOLVERS: tuple[str, ...] = get_args(Solver)


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """A placement, and how near it is to the best.

    Attributes:
        placement: sites with their ranks and alphas.
        budget: what was to be spent at most.
        used: what the placement takes, in the unit of the budget.
        utility: of the placement; see `allocate.utility`.
        bound: no placement within the same constraints has a higher utility. For `proportional`,
            which does not keep a budget, none that takes as much as its placement does.
        shadow_price: utility of one more unit of the budget, where parts of ranks are allowed; 0
            where the budget does not bind.
        method: solver that gave the placement.
        scorer: method that gave the scores.
        notes: what a person should know of this allocation.
    """

    placement: Placement
    budget: Budget
    used: int
    utility: float
    bound: float
    shadow_price: float
    method: Solver
    scorer: str
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """How far below the bound the utility is at most, as a share of the bound; 0 is proof."""
        return max(0.0, (self.bound - self.utility) / self.bound) if self.bound > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the placement's plain data, which ``file(...)`` reads, and how it came about."""
        return {
            **self.placement.to_json(),
            "budget": self.budget.to_json(),
            "used": self.used,
            "utility": self.utility,
            "bound": self.bound,
            "gap": self.gap,
            "shadow_price": self.shadow_price,
            "method": self.method,
            "scorer": self.scorer,
            "notes": list(self.notes),
        }
