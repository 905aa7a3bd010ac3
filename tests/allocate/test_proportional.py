"""GoRA's rule, by hand."""

import pytest
from score_tables import path, ranks, solve, table

import anatomies
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Cap, Tie
from loratlas.errors import PlacementError


def gora(importances, costs, mean_rank, low, high):
    """What `get_allocated_rank` of the official code does, with its default round."""
    budget = sum(costs) * mean_rank
    total = sum(importances)
    shares = [round(budget * importance / total) for importance in importances]
    return [min(max(share // cost, low), high) for share, cost in zip(shares, costs, strict=True)]


def test_ranks_by_hand():
    # q, k and gate take 64, 48 and 80 a rank: 8 of each are 1536. Shares of 1, 2 and 5 eighths
    # are 192, 384 and 960, which pay for ranks 3, 8 and 12; 3 is lifted to 4, which is 64 too many.
    wider = anatomies.llama()
    scores = table({path("q"): 1.0, path("k"): 2.0, path("gate"): 5.0}, wider)
    found = solve(scores, 1536, anatomy=wider, solver="proportional", min_rank=4, max_rank=16)
    assert list(ranks(found).values()) == [4, 8, 12] == gora([1, 2, 5], [64, 48, 80], 8, 4, 16)
    assert found.used == 4 * 64 + 8 * 48 + 12 * 80 == 1600
    assert found.notes == (
        "the proportional rule does not keep the budget: 64 parameters (4.17%) above it",
    )


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0, 1.0), (0.3, 4.0, 0.1, 2.0), (7.0, 0.0, 1, 3)])
def test_the_formula_of_the_official_code(values):
    parts, costs = ("q", "v", "up", "down"), [16, 12, 20, 20]
    scores = table(dict(zip(map(path, parts), values, strict=True)))
    # No site goes above its smaller dimension: 8, and 4 for v.
    found = solve(scores, sum(costs) * 2, solver="proportional", min_rank=1, max_rank=4)
    assert list(ranks(found).values()) == gora(values, costs, 2, 1, 4)


def test_what_is_left_is_said():
    scores = table({path("q"): 3.0, path("gate"): 1.0})
    found = solve(scores, 50, solver="proportional")
    # 38 of 50 pay for 2 ranks of q, 12 for none of gate.
    assert ranks(found) == {path("q"): 2}
    assert found.notes[0].endswith("18 parameters (36.00%) below it")
    # No placement of 32 parameters is better: 2 ranks of q are worth more than 1 of gate.
    assert found.gap == pytest.approx(0, abs=1e-12)


def test_tied_sites_add_up_their_importance():
    values = {path("q"): 1.0, path("k"): 1.0, path("v"): 0.0, path("gate"): 2.0}
    tie = Tie(rule="attention.q | attention.k | attention.v")
    found = solve(table(values), 160, solver="proportional", ties=(tie,))
    # Half of 160 for q, k and v, which take 40 a rank together, half for gate, which takes 20.
    assert list(ranks(found).values()) == [2, 2, 2, 4]
    assert found.used == 160
    assert found.notes == ()


def test_other_limits_are_refused():
    scores = table({path("q"): 3.0, path("gate"): 1.0})
    with pytest.raises(PlacementError, match="keeps within no other limit, and caps are given"):
        solve(
            scores,
            50,
            solver="proportional",
            caps=(Cap(rule="attention", most=Budget(amount=20)),),
        )
    with pytest.raises(PlacementError, match="and a number of sites are given"):
        solve(scores, 50, solver="proportional", max_sites=1)
