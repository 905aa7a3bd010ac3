"""What does a person say of a placement that scores choose? No torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loratlas.allocate.allocation import Solver
from loratlas.allocate.constraints import Constraints
from loratlas.study.scoring_options import ScoringOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridSpec:
    """A placement whose ranks follow from scores and a budget.

    Attributes:
        scoring: how the sites are scored.
        constraints: what its ranks may be.
        solver: how the budget is divided.
    """

    scoring: ScoringOptions
    constraints: Constraints
    solver: Solver = "exact"

    def to_json(self) -> dict[str, Any]:
        """Return everything that decides its ranks beside model and rows, as plain data."""
        limits = self.constraints
        said = {
            "ranks": list(limits.ranks or ()),
            "ties": [asdict(tie) for tie in limits.ties],
            "caps": [asdict(cap) for cap in limits.caps],
            "max_sites": limits.max_sites,
        }
        return {
            "scoring": asdict(self.scoring),
            "min_rank": limits.min_rank,
            "max_rank": limits.max_rank,
            "solver": self.solver,
            # What is not said leaves the digest of a study as it is.
            **{key: value for key, value in said.items() if value},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """How scores chose a placement, as a person should know it.

    Attributes:
        scores: the table, as plain data.
        allocation: what the allocator says of its result: budget, used, gap, price.
    """

    scores: Mapping[str, Any]
    allocation: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "kind": "hybrid",
            "scores": dict(self.scores),
            "allocation": dict(self.allocation),
        }
