"""Which ranks does GoRA's rule give?

Each site gets its share of the budget in proportion to its importance, and the rank that the share
pays for: ``a = I / ΣI``, ``r = round(a · B) // f``, clipped to the lowest and highest rank, with B
the budget and f what one rank takes. Source: arXiv 2502.12171; `get_allocated_rank` in
common/lora_modules/gora.py of hhnqqq/MyTransformers, with features not adjusted. Rounding down
leaves some of the budget, and clipping may leave more or exceed it; nothing is given back.
"""

from collections.abc import Mapping
from fractions import Fraction

from loratlas.allocate.problem import Choice, Item, Problem


def solve_proportional(problem: Problem, weights: Mapping[str, float], budget: int) -> Choice:
    """Return the choice of GoRA's rule; it may exceed the budget, or leave some of it.

    Args:
        problem: with all options; of its limits only what ranks take of the budget is read.
        weights: importance by path, at least 0 and not all 0.
        budget: in the unit of the first limit.
    """
    importances = [sum(weights[site.path] for site in item.sites) for item in problem.items]
    total = sum(map(Fraction, importances))
    return tuple(
        _option(item, round(Fraction(importance) / total * budget))
        for item, importance in zip(problem.items, importances, strict=True)
    )


def _option(item: Item, share: int) -> int:
    """Return the highest option that a share pays for, or the first."""
    affordable = [option for option, takes in enumerate(item.takes[0]) if takes <= share]
    return affordable[-1] if affordable else 0
