"""Which columns stay under a budget, and where do new ones go? No torch."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """One unit of rank at one site.

    Attributes:
        path: of the site.
        number: identity of the column within its site.
        cost: what it takes of the budget.
        value: what the budget is spent on; higher is better.
        protected: whether it stays before all that are not.
        parameters: adapter parameters that it has, where the budget counts something else.
    """

    path: str
    number: int
    cost: int
    value: float
    protected: bool = False
    parameters: int = 0


def keep(
    columns: Iterable[Column],
    limit: int,
    *,
    min_rank: int = 0,
    most_parameters: float = math.inf,
) -> list[Column]:
    """Return the columns that stay: the best that fit.

    The best `min_rank` of each site come before all others. What does not fit is skipped, and
    cheaper columns after it may still fit. Of columns with one value those with the smaller number
    stay, so that sites which nothing tells apart keep equal ranks, and then those with the smaller
    path.

    Args:
        columns: those to choose from.
        limit: of the sum of their costs.
        min_rank: columns that each site keeps before others are chosen by their value.
        most_parameters: limit of the sum of their parameters.
    """
    kept, used, held = [], 0, 0
    for column in _sites_first(sorted(columns, key=_order), min_rank):
        if used + column.cost <= limit and held + column.parameters <= most_parameters:
            kept.append(column)
            used += column.cost
            held += column.parameters
    return kept


def grow(kept: Sequence[Column], room: int, capacities: Mapping[str, int]) -> dict[str, int]:
    """Return how many columns to add at which site: one for each of the best columns, in turn.

    Sites that own the best columns get the new ones (ElaLoRA, arXiv 2504.00254). A column without
    a value asks for none.

    Args:
        kept: the columns that stay.
        room: what may be spent.
        capacities: largest rank by path.
    """
    ranks = Counter(column.path for column in kept)
    grown: Counter[str] = Counter()
    for column in sorted(kept, key=lambda each: (-each.value, each.number, each.path)):
        free = capacities[column.path] - ranks[column.path] - grown[column.path]
        if column.value > 0 and free > 0 and column.cost <= room:
            grown[column.path] += 1
            room -= column.cost
    return dict(grown)


def _order(column: Column) -> tuple[bool, float, int, str]:
    return (not column.protected, -column.value, column.number, column.path)


def _sites_first(order: Sequence[Column], min_rank: int) -> list[Column]:
    """Return columns with the first few of each site in front, otherwise in their order."""
    ranks: Counter[str] = Counter()
    first: list[Column] = []
    rest: list[Column] = []
    for column in order:
        (first if ranks[column.path] < min_rank else rest).append(column)
        ranks[column.path] += 1
    return [*first, *rest]
