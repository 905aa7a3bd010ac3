"""The bound and the price of the linear relaxation, and where the greedy allocation is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import LARGE, SMALL, path, ranks, solve, table

from loratlas.allocate.greedy import solve_greedy
from loratlas.allocate.problem import Item, Problem
from loratlas.allocate.relaxation import relax

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
PARTS = ("q", "k", "v", "o", "gate", "up", "down")


def problem(gains, costs, *limits):
    """Return a problem of items whose options have these gains and costs; rank 0 is added."""
    items = tuple(
        Item(
            sites=(SMALL.by_path[path(part)],),
            ranks=tuple(range(len(gain) + 1)),
            gains=np.array([0.0, *gain]),
            takes=np.array([[0, *cost]] * len(limits)),
        )
        for part, gain, cost in zip(PARTS, gains, costs, strict=False)
    )
    return Problem(items=items, limits=np.array(limits))


def test_price_and_bound_by_hand():
    # Densities: 10/2 = 5 and 4/2 = 2 of the first item, 9/3 = 3 of the second. A budget of 4 takes
    # the first step whole and two thirds of the second's.
    found = relax(problem([[10, 14], [9]], [[2, 4], [3]], 4))
    assert found.prices[0] == pytest.approx(3)
    assert found.bound == pytest.approx(10 + 9 * 2 / 3)
    # A budget that holds everything is worth nothing more.
    found = relax(problem([[10, 14], [9]], [[2, 4], [3]], 8))
    assert found.prices[0] == pytest.approx(0, abs=1e-12)
    assert found.bound == pytest.approx(23)


def test_a_curve_that_is_not_concave_is_priced_along_its_hull():
    # The first rank adds nothing, both add 8 for 4: the hull goes at 2 a unit from 0 to 4.
    steep = problem([[0, 8]], [[2, 4]], 3)
    assert relax(steep).prices[0] == pytest.approx(2)
    assert relax(steep).bound == pytest.approx(6)
    assert solve_greedy(steep, relax(steep)) == (0,)


steps = st.lists(st.lists(st.floats(0.1, 9), min_size=1, max_size=4), min_size=2, max_size=6)
thousandths = st.integers(0, 9000).map(lambda n: n / 1000)
prices = st.lists(st.integers(1, 9), min_size=6, max_size=6)


@LAWS
@given(steps, prices, st.integers(2, 60))
def test_the_price_lies_between_the_slopes_on_both_sides(steps, prices, budget):
    gains = [np.cumsum(each).tolist() for each in steps]
    costs = [
        [price * rank for rank in range(1, len(each) + 1)]
        for each, price in zip(steps, prices, strict=False)
    ]
    before, here, after = (relax(problem(gains, costs, budget + d)) for d in (-1, 0, 1))
    tolerance = 1e-7 * here.bound
    assert after.bound - here.bound <= here.prices[0] + tolerance
    assert here.prices[0] <= here.bound - before.bound + tolerance


@LAWS
@given(
    st.lists(
        st.lists(thousandths, min_size=3, max_size=3).map(lambda c: sorted(c, reverse=True)),
        min_size=7,
        max_size=7,
    ),
    st.integers(1, 20),
)
def test_greedy_is_exact_for_concave_curves_of_one_cost(curves, budget):
    """With the budget in ranks the best is the sum of the highest marginal values."""
    best = sum(sorted((value for curve in curves for value in curve), reverse=True)[:budget])
    if best == 0:
        return
    scores = table(None, curves={path(p): tuple(c) for p, c in zip(PARTS, curves, strict=True)})
    found = solve(scores, budget, "ranks", max_rank=3, solver="greedy")
    assert found.utility == pytest.approx(best)
    assert found.bound == pytest.approx(best)


def test_equal_sites_get_equal_ranks_as_far_as_the_budget_goes():
    alike = {path(part, layer): 1.0 for layer in range(2) for part in ("gate", "up", "down")}
    for solver in ("greedy", "exact"):
        found = solve(table(alike), 15, "ranks", solver=solver)
        # 15 ranks over 6 sites: 3 for the first three in the model, 2 for the others.
        assert list(ranks(found).values()) == [3, 3, 3, 2, 2, 2]
        assert found.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("budget", [2_000_000, 10_000_000, 41_943_040, 60_000_000])
@pytest.mark.parametrize("form", ["values", "curves"])
def test_llama_8b_is_solved_to_the_end(budget, form):
    chance = np.random.default_rng(budget)
    paths = [site.path for site in LARGE.sites if site.in_block]
    values = dict(zip(paths, chance.lognormal(sigma=1.5, size=len(paths)).tolist(), strict=True))
    decay = dict(zip(paths, chance.uniform(0.6, 0.98, len(paths)).tolist(), strict=True))
    curves = {p: tuple(values[p] * decay[p] ** k for k in range(32)) for p in paths}
    scores = table(values, LARGE, curves=curves if form == "curves" else None)
    found = solve(scores, budget, anatomy=LARGE, max_rank=32)
    assert len(paths) == 224
    assert found.gap == 0
    assert found.used <= budget
    assert found.placement.trainable_parameters == found.used
    greedy = solve(scores, budget, anatomy=LARGE, max_rank=32, solver="greedy")
    assert greedy.utility <= found.utility <= greedy.bound
    assert greedy.gap < 1e-3
