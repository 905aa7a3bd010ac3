"""Every allocation of a small model is tried: the exact one is the best, and every bound holds."""

from itertools import product
from math import fsum, log

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_tables import SMALL, path, ranks, solve, table

from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Cap, Tie
from loratlas.errors import PlacementError

PARTS = ("q", "k", "v", "gate", "down")
SITES = {name: SMALL.by_path[path(name)] for name in PARTS}
LAWS = settings(max_examples=80, deadline=None, derandomize=True)
COSTS = {"parameters": lambda site: site.d_in + site.d_out, "ranks": lambda _: 1}
COSTS["bytes"] = lambda site: 4 * (site.d_in + site.d_out)
QKV = ("q", "k", "v")

# Small whole numbers, so that many allocations are equally good, and a negative one now and then.
marginals = st.lists(st.integers(-1, 6).map(float), min_size=3, max_size=3)
cases = st.fixed_dictionaries(
    {
        "curves": st.tuples(*[marginals] * len(PARTS)),
        "unit": st.sampled_from(list(COSTS)),
        "share": st.integers(1, 99),
        "tied": st.booleans(),
        "cap": st.none() | st.integers(1, 99),
        "max_sites": st.none() | st.integers(1, 5),
        "ranks": st.sampled_from([None, (0, 1, 3), (0, 2)]),
    }
)


class Case:
    """A case as the allocator sees it, and as a person would check it."""

    def __init__(self, case):
        self.curves = dict(zip(PARTS, case["curves"], strict=True))
        self.allowed = case["ranks"] or (0, 1, 2, 3)
        self.unit, self.max_sites, self.tied = case["unit"], case["max_sites"], case["tied"]
        # The cap counts parameters, whatever the budget counts.
        self.cap = None if case["cap"] is None else max(1, 40 * 3 * case["cap"] // 100)
        self.largest = max(self.used(chosen) for chosen in self.options() if self.limited(chosen))
        self.budget = max(1, self.largest * case["share"] // 100)

    def table(self):
        curves = {path(name): tuple(curve) for name, curve in self.curves.items()}
        return table(None, curves=curves)

    def limits(self):
        limits = {"ranks": self.allowed, "max_sites": self.max_sites}
        if self.tied:
            limits["ties"] = (Tie(rule="attention.q | attention.k | attention.v"),)
        if self.cap is not None:
            limits["caps"] = (Cap(rule="attention", most=Budget(amount=self.cap)),)
        return limits

    def utility(self, chosen):
        return fsum(max(m, 0.0) for p in PARTS for m in self.curves[p][: chosen[p]])

    def used(self, chosen):
        return sum(chosen[part] * COSTS[self.unit](SITES[part]) for part in PARTS)

    def fits(self, chosen):
        return self.used(chosen) <= self.budget and self.limited(chosen)

    def limited(self, chosen):
        """Whether everything but the budget is kept."""
        attention = sum(chosen[part] * COSTS["parameters"](SITES[part]) for part in QKV)
        return (
            (self.cap is None or attention <= self.cap)
            and (self.max_sites is None or sum(map(bool, chosen.values())) <= self.max_sites)
            and (not self.tied or len({chosen[part] for part in QKV}) == 1)
            and set(chosen.values()) <= set(self.allowed)
        )

    def options(self):
        everything = product(self.allowed, repeat=len(PARTS))
        return (dict(zip(PARTS, chosen, strict=True)) for chosen in everything)

    def best(self):
        return max(self.utility(chosen) for chosen in self.options() if self.fits(chosen))


def given_ranks(allocation):
    found = ranks(allocation)
    return {part: found.get(path(part), 0) for part in PARTS}


def attempt(case, solver):
    """Return the allocation, None where the allocator said that nothing can be adapted."""
    try:
        return solve(case.table(), case.budget, case.unit, solver=solver, **case.limits())
    except PlacementError as error:
        if "below the smallest allocation" in str(error) or "no site can have" in str(error):
            return None
        raise


@LAWS
@given(cases)
def test_the_exact_allocation_is_the_best_of_all(drawn):
    case = Case(drawn)
    assume(any(value > 0 for curve in case.curves.values() for value in curve))
    found, best = attempt(case, "exact"), case.best()
    if found is None:
        assert best == 0
        return
    chosen = given_ranks(found)
    assert case.fits(chosen)
    assert found.utility == case.utility(chosen) == pytest.approx(best, abs=1e-9)
    assert found.used == case.used(chosen)
    assert (found.gap, found.bound) == (0, found.utility)
    assert not any(note.startswith("the search ended before") for note in found.notes)


@LAWS
@given(cases)
def test_no_budget_is_called_too_large_that_an_allocation_can_take(drawn):
    case = Case(drawn)
    assume(case.largest > 0)
    case.budget = case.largest
    attempt(case, "greedy")
    bound = sum(COSTS[case.unit](site) for site in SITES.values()) * max(case.allowed)
    with pytest.raises(PlacementError, match="above the largest allocation"):
        solve(case.table(), bound + 1, case.unit, solver="greedy", **case.limits())


@LAWS
@given(cases)
def test_the_greedy_allocation_fits_and_its_bound_holds(drawn):
    case = Case(drawn)
    assume(any(value > 0 for curve in case.curves.values() for value in curve))
    found, best = attempt(case, "greedy"), case.best()
    if found is None:
        assert best == 0
        return
    chosen = given_ranks(found)
    assert case.fits(chosen)
    assert found.utility == case.utility(chosen) <= best + 1e-9
    assert found.bound >= best - 1e-9
    assert found.gap >= 0


@LAWS
@given(st.lists(st.floats(0.01, 10), min_size=len(PARTS), max_size=len(PARTS)), st.integers(5, 95))
def test_single_values_have_the_utility_that_is_written_down(values, share):
    weights = dict(zip(PARTS, values, strict=True))
    most = sum(COSTS["parameters"](site) for site in SITES.values()) * 3
    budget = max(16, most * share // 100)
    scores = table({path(part): value for part, value in weights.items()})
    found = solve(scores, budget, max_rank=3, tau=2.0)

    def utility(chosen):
        return sum(weights[part] * log(1 + rank / 2) for part, rank in chosen.items())

    options = (dict(zip(PARTS, each, strict=True)) for each in product(range(4), repeat=5))
    within = [
        each
        for each in options
        if sum(each[p] * COSTS["parameters"](SITES[p]) for p in PARTS) <= budget
    ]
    assert found.utility == pytest.approx(max(map(utility, within)), rel=1e-9)
    assert utility(given_ranks(found)) == pytest.approx(found.utility, rel=1e-12)
