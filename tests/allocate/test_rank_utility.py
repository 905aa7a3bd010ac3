"""What a rank is worth by a score: formulas by hand, and which scores are refused."""

from dataclasses import replace
from math import inf, log, nan

import pytest
from score_tables import path, ranks, solve, table

from loratlas.allocate.utility import utility_of
from loratlas.errors import DataError, PlacementError

Q, K, UP, DOWN = map(path, ("q", "k", "up", "down"))


def at(scores, name, steps, tau=4.0):
    paths = [score.path for score in scores.scores]
    return utility_of(scores, paths, tau).at(name, steps).tolist()


def test_a_curve_is_added_up_and_nothing_follows_its_end():
    scores = table(None, curves={Q: (5.0, 3.0, -2.0, 1.0), K: (1.0,)})
    assert at(scores, Q, [0, 1, 2, 3, 4, 9]) == [0, 5, 8, 8, 9, 9]
    assert at(scores, K, [0, 1, 2]) == [0, 1, 1]


def test_a_single_value_bends_at_tau():
    scores = table({Q: 3.0, K: 0.0, UP: -1.0})
    assert at(scores, Q, [0, 4, 12]) == pytest.approx([0, 3 * log(2), 3 * log(4)])
    assert at(scores, K, [0, 4]) == at(scores, UP, [0, 4]) == [0, 0]


def test_where_lower_is_better_the_order_is_turned_round():
    def weights(*values):
        scores = table(dict(zip((Q, K, UP), values, strict=True)), higher_is_better=False)
        return list(utility_of(scores, [Q, K, UP], 4.0).weights.values())

    assert weights(1.0, 2.0, 4.0) == [4, 3, 1]
    assert weights(2.0, 2.0, 2.0) == [2, 2, 2]
    assert weights(0.0, 1.0, 3.0) == [3, 2, 0]
    # With negative values the highest is worth nothing, and the order is still the whole order.
    assert weights(-5.0, -3.0, 1.0) == [6, 4, 0]


def test_the_sites_of_a_group_share_its_value():
    values = {UP: 6.0, DOWN: 6.0, path("gate"): 6.0, Q: 6.0}
    # Equal values do not make a group.
    groups = {UP: "a", DOWN: "a", path("gate"): "a", Q: "b"}
    tried = table(values, granularity="group", groups=groups)
    weights = dict(utility_of(tried, [UP, Q], 4.0).weights)
    assert weights == {UP: 2, Q: 6}
    types = table(values, granularity="type")
    assert dict(utility_of(types, [UP, Q], 4.0).weights) == {UP: 6, Q: 6}


def test_values_of_groups_say_of_which():
    silent = table({UP: 6.0, DOWN: 6.0}, granularity="group", groups={UP: "a"})
    with pytest.raises(DataError) as error:
        solve(silent, 80)
    assert str(error.value) == (
        f"the scores by hand are values of groups, and that of {DOWN} does not say of which; score "
        "again"
    )


def test_plop_adapts_the_lowest():
    scores = table({UP: 1.1, DOWN: 1.0, path("up", 1): 2.6}, higher_is_better=False)
    # 2.6, 2.5 and 1.0 once turned round; r + 4 goes with them, and the last is below 4.
    assert ranks(solve(scores, 12, "ranks")) == {UP: 6, DOWN: 6}


@pytest.mark.parametrize("scores", [(0.0, 0.0), (-1.0, -3.0), (-0.0, -2.0)])
def test_scores_that_say_nothing_make_all_sites_equal(scores):
    note = "no score is above zero: every site is taken to be worth the same"
    values = table(dict(zip((UP, DOWN), scores, strict=True)))
    curves = table(None, curves={UP: (scores[0],), DOWN: (scores[1],)})
    for each in (values, curves):
        for solver in ("exact", "greedy", "proportional"):
            found = solve(each, 80, solver=solver)
            assert ranks(found) == {UP: 2, DOWN: 2}
            assert found.notes == (note,)


def test_curves_of_nothing_make_all_sites_equal_whatever_their_values_are():
    scores = table({UP: 3.0, DOWN: 1.0}, curves={UP: (0.0,), DOWN: (0.0,)})
    assert dict(utility_of(scores, [UP, DOWN], 4.0).weights) == {UP: 1, DOWN: 1}
    for solver in ("exact", "greedy", "proportional"):
        found = solve(scores, 80, solver=solver)
        assert ranks(found) == {UP: 2, DOWN: 2}
        assert found.notes == ("no score is above zero: every site is taken to be worth the same",)


def test_a_budget_in_ranks_keeps_what_is_above_one_threshold():
    """PARA's rule, for curves of squared singular values."""
    curves = {UP: (9.0, 4.0, 1.0), DOWN: (5.0, 3.0), Q: (0.5, 0.0)}
    for amount, threshold in ((3, 4.0), (4, 3.0), (6, 0.5)):
        kept = {name: sum(value >= threshold for value in curve) for name, curve in curves.items()}
        found = ranks(solve(table(None, curves=curves), amount, "ranks"))
        assert found == {name: rank for name, rank in kept.items() if rank}


def test_a_site_worth_nothing_gets_nothing():
    found = solve(table({UP: 1.0, DOWN: 0.0}), 100)
    assert ranks(found) == {UP: 5}
    capped = solve(table({UP: 1.0, DOWN: 0.0}), 100, max_rank=3)
    assert ranks(capped) == {UP: 3}
    assert capped.shadow_price == pytest.approx(0, abs=1e-12)
    assert capped.notes == (
        "40 parameters (40.00%) of the budget are left: no rank that is allowed adds to the "
        "utility",
    )


def test_small_tau_gives_ranks_in_proportion_to_value_per_cost():
    # 4, 2 and 1 of one cost: 14 ranks are 8, 4 and 2.
    values = table({UP: 4.0, DOWN: 2.0, path("gate"): 1.0})
    assert sorted(ranks(solve(values, 14, "ranks", tau=1e-3)).values()) == [2, 4, 8]
    # A large tau fills the best one first.
    assert ranks(solve(values, 9, "ranks", tau=1e6)) == {UP: 8, DOWN: 1}


def test_where_curves_end_is_said():
    scores = table(None, curves={UP: (3.0, 2.0), DOWN: (2.0, 1.0)})
    found = solve(scores, 3, "ranks")
    assert ranks(found) == {UP: 2, DOWN: 1}
    assert found.notes == (
        f"the curves end at 1 of 2 sites, such as {UP} at rank 2: what higher ranks add there was "
        "not scored",
    )
    assert solve(scores, 3, "ranks", max_rank=2).notes == ()


@pytest.mark.parametrize("value", [nan, inf, -inf, None, "1", True, 10**400])
def test_what_is_no_number(value):
    with pytest.raises(DataError, match=f"the score of {UP} is .*, not a finite number"):
        solve(table({UP: value, DOWN: 1.0}), 80)
    curve = table({UP: 1.0}, curves={UP: (1.0, value)})
    with pytest.raises(DataError, match=f"the score of {UP} is .* at rank 2 of its curve, not a"):
        solve(curve, 80)


def test_scores_that_do_not_go_together():
    with pytest.raises(DataError, match="the table by hand holds no score"):
        solve(replace(table({UP: 1.0}), scores=()), 80)
    with pytest.raises(DataError, match=r"the curve of .*up_proj is empty"):
        solve(table({UP: 1.0}, curves={UP: ()}), 80)
    twice = table({UP: 1.0})
    with pytest.raises(DataError, match=f"the table by hand holds 2 scores of {UP}"):
        solve(replace(twice, scores=twice.scores * 2), 80)
    mixed = table({UP: 1.0, DOWN: 1.0}, curves={UP: (1.0,)})
    with pytest.raises(PlacementError, match=r"1 of 2 sites have no curve by hand, first .*down"):
        solve(mixed, 80)
    low = table(None, curves={UP: (1.0,)}, higher_is_better=False)
    with pytest.raises(PlacementError, match="lower is better and hold curves"):
        solve(low, 80)
    for size in (1e306, 1e-306):
        with pytest.raises(DataError, match=r"add up to .*; floats hold sums and shares"):
            solve(table({UP: size, DOWN: size}), 80)
    for tau in (0.0, -1.0, nan, inf):
        with pytest.raises(PlacementError, match="tau is a finite number above 0"):
            solve(table({UP: 1.0}), 80, tau=tau)


def test_scores_of_another_model():
    with pytest.raises(PlacementError) as error:
        solve(table({"model.layers.0.mlp.up_prj": 1.0}), 80)
    assert str(error.value) == (
        "1 of 1 scored sites are not in llama, first model.layers.0.mlp.up_prj (did you mean "
        f"{UP}?); the scores are of llama"
    )
    other = replace(table({UP: 1.0}), anatomy_digest="0" * 64)
    with pytest.raises(PlacementError, match="with digest 000000000000, and llama has digest "):
        solve(other, 80)
