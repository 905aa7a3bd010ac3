"""Which ranks can each group of sites have, what are they worth, and what do they take?

This is a knapsack with multiple choice: of each item, which is a group of sites with one rank, one
option is taken. Every option has a utility, and takes something of every limit: the first limit is
the budget, then come the caps, then the number of sites. What an option takes grows with its rank.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from math import fsum

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Constraints, picked, tied
from loratlas.allocate.utility import Utility
from loratlas.anatomy.sites import Site
from loratlas.errors import PlacementError
from loratlas.placement.resolve import Resolver

Choice = tuple[int, ...]
"""The option of each item, counted from 0."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Item:
    """Sites that share one rank.

    Attributes:
        sites: in the order of the model.
        ranks: that they may have, from the lowest on.
        gains: utility of each of these ranks, shape (options,).
        takes: what each of them takes of each limit, shape (limits, options).
    """

    sites: tuple[Site, ...]
    ranks: tuple[int, ...]
    gains: NDArray[np.float64]
    takes: NDArray[np.int64]

    def keep(self, options: NDArray[np.bool_]) -> "Item":
        """Return the item with some of its options, shape (options,)."""
        ranks = tuple(rank for rank, kept in zip(self.ranks, options, strict=True) if kept)
        return replace(self, ranks=ranks, gains=self.gains[options], takes=self.takes[:, options])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """Items of which to choose, and limits on what the choice takes.

    Attributes:
        items: in the order of the model.
        limits: shape (limits,); the first is the budget.
    """

    items: tuple[Item, ...]
    limits: NDArray[np.int64]

    def takes(self, choice: Choice) -> NDArray[np.int64]:
        """Return what a choice takes of each limit, shape (limits,)."""
        taken = [item.takes[:, option] for item, option in zip(self.items, choice, strict=True)]
        total: NDArray[np.int64] = np.sum(taken, axis=0)
        return total

    def fits(self, choice: Choice) -> bool:
        """Whether a choice keeps within all limits."""
        return bool((self.takes(choice) <= self.limits).all())

    def utility(self, choice: Choice) -> float:
        """Return the utility of a choice; the order of items makes no difference to it."""
        return fsum(item.gains[option] for item, option in zip(self.items, choice, strict=True))

    def without_vain_options(self) -> "Problem":
        """Return the problem without options that are worth no more than one of lower rank."""

        def trimmed(item: Item) -> Item:
            best_before = [-np.inf, *accumulate(item.gains[:-1], max)]
            return item.keep(item.gains > np.array(best_before))

        return replace(self, items=tuple(map(trimmed, self.items)))

    def with_budget(self, amount: int) -> "Problem":
        """Return the problem with another budget."""
        return replace(self, limits=np.array([amount, *self.limits[1:]], dtype=np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limit:
    """One limit: its name, the most, and what a rank above 0, and each unit of it, takes."""

    name: str
    most: int
    per_rank: Callable[[Site], int]
    per_adapter: int = 0

    def taken(self, sites: Sequence[Site], ranks: Sequence[int]) -> list[int]:
        """Return what sites take at each rank that they share."""
        per_rank, per_adapter = sum(map(self.per_rank, sites)), self.per_adapter * len(sites)
        return [per_rank * rank + per_adapter * (rank > 0) for rank in ranks]


def problem_of(
    sites: Sequence[Site],
    utility: Utility,
    budget: Budget,
    constraints: Constraints,
    *,
    resolver: Resolver,
    study_rank: int,
) -> Problem:
    """Write an allocation as a knapsack.

    Args:
        sites: to choose from, in the order of the model.
        utility: of their ranks.
        budget: the first limit.
        constraints: the others, and which ranks there are.
        resolver: of the rules in the constraints.
        study_rank: rank that the study gives to sites.

    Raises:
        RuleError: a rule of the constraints cannot be read.
        PlacementError: a rule fits nothing, or no allocation, or every one, is within the limits.
    """
    groups = tied(sites, constraints.ties, resolver)
    options = [_ranks(group, constraints, study_rank) for group in groups]
    limits = list(_limits(sites, budget, constraints, resolver))
    table = [
        [limit.taken(group, ranks) for limit in limits]
        for group, ranks in zip(groups, options, strict=True)
    ]
    _check_budget(budget, [rows[0] for rows in table], _largest(table, limits))
    most = []
    for number, limit in enumerate(limits):
        least = sum(rows[number][0] for rows in table)
        if least > limit.most:
            raise PlacementError(
                f"{limit.name} {limit.most:,}, and the lowest ranks of all sites take {least:,}"
            )
        # A limit above everything is as good as everything, and small enough for the solvers.
        most.append(min(limit.most, sum(rows[number][-1] for rows in table)))
    items = [
        Item(
            sites=group,
            ranks=ranks,
            gains=np.sum([utility.at(site.path, ranks) for site in group], axis=0),
            takes=np.array(rows, dtype=np.int64),
        )
        for group, ranks, rows in zip(groups, options, table, strict=True)
    ]
    return Problem(items=tuple(items), limits=np.array(most, dtype=np.int64))


def _ranks(sites: Sequence[Site], constraints: Constraints, study_rank: int) -> tuple[int, ...]:
    smallest = min(sites, key=lambda site: min(site.d_in, site.d_out))
    highest = min(smallest.d_in, smallest.d_out)
    ranks = constraints.allowed(highest, study_rank)
    if not ranks:
        raise PlacementError(
            f"{smallest.path} can have none of the ranks that are allowed: its smaller dimension "
            f"is {highest}; choose among other sites, or allow 0"
        )
    return ranks


def _limits(
    sites: Sequence[Site], budget: Budget, constraints: Constraints, resolver: Resolver
) -> Iterator[_Limit]:
    yield _Limit(name="the budget is", most=budget.amount, per_rank=budget.per_rank)
    for cap in constraints.caps:
        inside = picked(cap.rule, sites, resolver, "the cap")
        yield _Limit(
            name=f"the cap on {cap.rule}, in {cap.most.unit}, is",
            most=cap.most.amount,
            per_rank=_among({site.path for site in inside}, cap.most),
        )
    if constraints.max_sites is not None:
        yield _Limit(
            name="the most sites with an adapter are",
            most=constraints.max_sites,
            per_rank=lambda _site: 0,
            per_adapter=1,
        )


def _among(paths: Set[str], budget: Budget) -> Callable[[Site], int]:
    return lambda site: budget.per_rank(site) if site.path in paths else 0


def _largest(table: Sequence[Sequence[Sequence[int]]], limits: Sequence[_Limit]) -> int:
    """Return what no allocation exceeds of the budget, by each of the other limits alone.

    Exact where there is no other; else as if items could have parts of their highest ranks, taken
    in the order of what these take of the budget for what they take of the limit.

    Args:
        table: what items take, by item, limit and option.
        limits: the first is the budget.
    """
    largest = sum(rows[0][-1] for rows in table)
    for number, limit in enumerate(limits[1:], 1):
        free = sum(rows[0][-1] for rows in table if not rows[number][-1])
        bound = [(rows[0][-1], rows[number][-1]) for rows in table if rows[number][-1]]
        left, reached = Fraction(limit.most), Fraction(free)
        for takes, of_limit in sorted(bound, key=lambda each: Fraction(*each), reverse=True):
            part = min(left / of_limit, Fraction(1))
            reached += takes * part
            left -= of_limit * part
        largest = min(largest, int(reached))
    return largest


def _check_budget(budget: Budget, taken: Sequence[Sequence[int]], largest: int) -> None:
    """Refuse a budget that no allocation keeps, and one that every allocation keeps.

    Args:
        budget: what is given.
        taken: what items take of it, by option.
        largest: what no allocation exceeds.
    """
    least, most = (sum(options[end] for options in taken) for end in (0, -1))
    if most == 0:
        raise PlacementError("no site can have a rank above 0")
    # Something has to be adapted: the least is the cheapest first step.
    least = least or min(options[1] for options in taken if len(options) > 1)
    # Limits that leave no allocation at all have messages of their own.
    if least <= budget.amount <= largest or (largest < least <= budget.amount):
        return
    end = "below the smallest" if budget.amount < least else "above the largest"
    about = "" if largest == most else "at most "
    raise PlacementError(
        f"a budget of {budget} is {end} allocation: with the sites and ranks that are "
        f"allowed, the smallest takes {least:,} and the largest {about}{largest:,} {budget.unit}"
    )
