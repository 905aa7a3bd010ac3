"""The exact search against HiGHS where too much is to be tried, and what a narrow one leaves."""

import numpy as np
import pytest
from scipy import optimize, sparse
from score_tables import LARGE, LORA, solve, table

from loratlas.allocate import exact
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Cap, Constraints, Tie
from loratlas.allocate.problem import problem_of
from loratlas.allocate.utility import utility_of
from loratlas.placement.resolve import Resolver

SITES = [site for site in LARGE.sites if site.in_block]
BUDGET = 6_000_000
RANKS = (0, 2, 4, 8, 16)
LIMITS = {
    "budget": {},
    "sites": {"max_sites": 40},
    "caps": {
        "caps": (
            Cap(rule="attention", most=Budget(amount=1_500_000)),
            Cap(rule="all @ last(8)", most=Budget(amount=60, unit="ranks")),
        )
    },
    "ties": {"ties": (Tie(rule="attention.q | attention.k | attention.v"),), "max_sites": 90},
}


def scores(seed):
    chance = np.random.default_rng(seed)
    values = chance.lognormal(sigma=1.5, size=len(SITES)).tolist()
    return table(dict(zip((site.path for site in SITES), values, strict=True)), LARGE)


def best_by_highs(limits, seed):
    """Return the utility that HiGHS proves to be the highest, within a share of 1e-5."""
    chosen = scores(seed)
    problem = problem_of(
        SITES,
        utility_of(chosen, [site.path for site in SITES], 4.0),
        Budget(amount=BUDGET),
        Constraints(ranks=RANKS, **limits),
        resolver=Resolver(anatomy=LARGE, root=None),
        study_rank=LORA.rank,
    )
    gains = np.concatenate([item.gains for item in problem.items])
    takes = np.concatenate([item.takes for item in problem.items], axis=1)
    ones = [sparse.csr_array(np.ones((1, len(item.ranks)))) for item in problem.items]
    found = optimize.milp(
        -gains,
        integrality=np.ones(len(gains)),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(takes / problem.limits[:, None], ub=1),
            optimize.LinearConstraint(sparse.block_diag(ones, format="csc"), lb=1, ub=1),
        ],
        options={"mip_rel_gap": 1e-5},
    )
    assert found.status == 0
    return -found.fun


@pytest.mark.parametrize("limits", LIMITS)
def test_highs_finds_none_better_and_none_worse(limits):
    found = solve(scores(3), BUDGET, anatomy=LARGE, ranks=RANKS, **LIMITS[limits])
    assert found.gap == 0
    assert found.utility == pytest.approx(best_by_highs(LIMITS[limits], 3), rel=2e-5)


def test_a_search_that_is_too_narrow_says_what_is_open(monkeypatch):
    limits = {"ranks": RANKS, **LIMITS["caps"]}
    best = solve(scores(5), BUDGET, anatomy=LARGE, **limits)
    assert best.gap == 0
    monkeypatch.setattr(exact, "_WIDTHS", (1, 2))
    narrow = solve(scores(5), BUDGET, anatomy=LARGE, **limits)
    greedy = solve(scores(5), BUDGET, anatomy=LARGE, solver="greedy", **limits)
    assert greedy.utility <= narrow.utility <= best.utility <= narrow.bound <= greedy.bound
    assert narrow.gap > 0
    assert narrow.notes == (
        "the search ended before every other placement was ruled out; the gap is what is open",
    )
    # Memory is bounded by the number of states, too, before any are given up.
    monkeypatch.setattr(exact, "_WIDTHS", (1_000,))
    monkeypatch.setattr(exact, "_MOST_AT_ONCE", 10)
    small = solve(scores(5), BUDGET, anatomy=LARGE, **limits)
    assert best.utility <= small.bound
