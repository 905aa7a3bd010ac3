"""Scores and a budget in, a placement out: which ranks, and how near to the best are they?"""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

from loratlas.allocate.allocation import SOLVERS, Allocation, Solver
from loratlas.allocate.budget import Budget
from loratlas.allocate.checks import check_table
from loratlas.allocate.constraints import Constraints, require_no_limits, selected
from loratlas.allocate.exact import Solution, solve_exact
from loratlas.allocate.greedy import solve_greedy
from loratlas.allocate.problem import Choice, Problem, problem_of
from loratlas.allocate.proportional import solve_proportional
from loratlas.allocate.relaxation import ROUNDING, Relaxation, relax
from loratlas.allocate.table import ScoreTable
from loratlas.allocate.utility import Utility, utility_of
from loratlas.anatomy.sites import Anatomy, Site
from loratlas.errors import PlacementError, did_you_mean
from loratlas.placement.placement import Adapter, LoraSpec, Placement
from loratlas.placement.resolve import Resolver


def allocate(
    table: ScoreTable,
    anatomy: Anatomy,
    budget: Budget,
    *,
    lora: LoraSpec,
    constraints: Constraints,
    solver: Solver,
    tau: float | None = None,
    root: Path | None = None,
) -> Allocation:
    """Give ranks to sites so that their utility is as high as the budget allows.

    Args:
        table: scores of sites of this model.
        anatomy: the model.
        budget: the most that the placement may take.
        lora: how alphas follow from ranks; its rank is the default of `tau` and a quarter of the
            default of the highest rank.
        constraints: what else holds.
        solver: ``exact`` finds the best placement, ``greedy`` a good one, ``proportional`` that of
            GoRA's rule, which neither keeps the budget nor knows caps.
        tau: how fast a single value is used up by ranks; see `allocate.utility`. None is the rank
            of `lora`. Curves have no need of it.
        root: where relative paths in ``file(...)`` start; None is the current folder.

    Raises:
        DataError: the table holds no score, or what is no number.
        RuleError: a rule of the constraints cannot be read.
        PlacementError: scores, budget and constraints do not fit the model or one another.
        WorkError: the solver failed.
    """
    if solver not in SOLVERS:
        raise PlacementError(
            f"unknown solver {solver!r}{did_you_mean(str(solver), SOLVERS)}; "
            f"it is one of {', '.join(SOLVERS)}"
        )
    if solver == "proportional":
        require_no_limits(constraints)
    check_table(table, anatomy)
    resolver = Resolver(anatomy=anatomy, root=root or Path())
    sites, notes = _candidates(table, anatomy, constraints.only, resolver)
    utility = utility_of(
        table, [site.path for site in sites], float(lora.rank) if tau is None else tau
    )
    problem = problem_of(
        sites, utility, budget, constraints, resolver=resolver, study_rank=lora.rank
    )
    if solver == "proportional":
        solved = _proportional(problem, utility, budget)
    else:
        solved = _solve(problem.without_vain_options(), solver)
    placement = _placement(solved, anatomy, lora)
    return Allocation(
        placement=placement,
        budget=budget,
        used=solved.used,
        utility=solved.utility,
        bound=solved.solution.bound,
        shadow_price=solved.shadow_price,
        method=solver,
        scorer=table.method,
        notes=(*notes, *utility.notes, *_notes(solved, problem, utility, budget, solver)),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Solved:
    """A problem, its solution, and the price of the first limit."""

    problem: Problem
    solution: Solution
    shadow_price: float

    @property
    def used(self) -> int:
        return int(self.problem.takes(self.solution.choice)[0])

    @property
    def utility(self) -> float:
        return self.problem.utility(self.solution.choice)

    @property
    def proven(self) -> bool:
        return self.solution.bound <= self.utility

    @property
    def ranks(self) -> list[tuple[Site, int]]:
        """The sites with a rank above 0."""
        return [
            (site, item.ranks[option])
            for item, option in zip(self.problem.items, self.solution.choice, strict=True)
            for site in item.sites
            if item.ranks[option]
        ]


def _candidates(
    table: ScoreTable, anatomy: Anatomy, only: str | None, resolver: Resolver
) -> tuple[list[Site], list[str]]:
    """Return the sites to choose from, in the order of the model, and notes on others."""
    scored = table.by_path
    sites = [site for site in anatomy.sites if site.path in scored]
    if only is None:
        return sites, []
    wanted = selected(only, resolver, "only")
    chosen = [site for site in sites if site.path in wanted]
    if not chosen:
        raise PlacementError(
            f"only {only}: none of the {len(wanted)} sites that it selects has a score by "
            f"{table.method}"
        )
    missing = len(wanted) - len(chosen)
    if not missing:
        return chosen, []
    return chosen, [f"{missing} of the {len(wanted)} sites of {only} have no score, and no adapter"]


def _solve(problem: Problem, solver: Solver) -> _Solved:
    relaxation = relax(problem)
    choice = solve_greedy(problem, relaxation)
    solution = _bounded(problem, choice, relaxation)
    if solver == "exact":
        solution = solve_exact(problem, relaxation, choice)
    return _Solved(problem=problem, solution=solution, shadow_price=float(relaxation.prices[0]))


def _proportional(problem: Problem, utility: Utility, budget: Budget) -> _Solved:
    choice = solve_proportional(problem, utility.weights, budget.amount)
    as_much = problem.with_budget(int(problem.takes(choice)[0]))
    relaxation = relax(as_much.without_vain_options())
    return _Solved(
        problem=as_much,
        solution=_bounded(problem, choice, relaxation),
        shadow_price=float(relaxation.prices[0]),
    )


def _bounded(problem: Problem, choice: Choice, relaxation: Relaxation) -> Solution:
    """Return a choice with the bound of the relaxation, which may lie below it by rounding."""
    utility = problem.utility(choice)
    reached = relaxation.bound <= utility + ROUNDING * abs(relaxation.bound)
    return Solution(choice=choice, bound=utility if reached else relaxation.bound)


def _placement(solved: _Solved, anatomy: Anatomy, lora: LoraSpec) -> Placement:
    adapters = tuple(
        Adapter(site=site, rank=rank, alpha=lora.alpha_at(rank)) for site, rank in solved.ranks
    )
    if not adapters:
        raise PlacementError(
            "no site can have an adapter: none whose score is above zero fits within the budget "
            "and the other limits"
        )
    return Placement(anatomy=anatomy, adapters=adapters, scaling=lora.scaling)


def _notes(
    solved: _Solved, problem: Problem, utility: Utility, budget: Budget, solver: Solver
) -> Iterator[str]:
    """Yield what is left or exceeded, and why the utility may not be all that it could be.

    Args:
        solved: the solution.
        problem: with all options.
        utility: of ranks.
        budget: what was given.
        solver: what solved it.
    """
    left = budget.amount - solved.used
    amount = f"{abs(left):,} {budget.unit} ({100 * abs(left) / budget.amount:.2f}%)"
    if left and solver == "proportional":
        side = "below" if left > 0 else "above"
        yield f"the proportional rule does not keep the budget: {amount} {side} it"
    elif left and solved.shadow_price == 0:
        yield f"{amount} of the budget are left: no rank that is allowed adds to the utility"
    if solver == "exact" and not solved.proven:
        yield "the search ended before every other placement was ruled out; the gap is what is open"
    if utility.curves is not None and solver != "proportional":
        yield from _ends_of_curves(solved, problem, utility.curves)


def _ends_of_curves(
    solved: _Solved, problem: Problem, curves: Mapping[str, Sized]
) -> Iterator[str]:
    """Say where the end of a curve, and no constraint, may have kept a rank low."""
    highest = {site.path: item.ranks[-1] for item in problem.items for site in item.sites}
    ranks = solved.ranks
    ended = [
        (site.path, rank)
        for site, rank in ranks
        if len(curves[site.path]) <= rank < highest[site.path]
    ]
    if ended:
        path, rank = ended[0]
        yield (
            f"the curves end at {len(ended)} of {len(ranks)} sites, such as {path} at rank {rank}: "
            "what higher ranks add there was not scored"
        )
