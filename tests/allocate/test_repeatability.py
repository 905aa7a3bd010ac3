"""When two rankings agree, when that is more than chance, and when a null would do as well."""

import json

import numpy as np
import pytest
from scipy import stats

from loratlas.allocate.agreement import (
    NUM_NULLS,
    against_nulls,
    oriented,
    rank_agreement,
    repeatability,
)
from loratlas.allocate.table import ScoreTable
from made_tables import table_of


def test_agreement_by_hand():
    # Of six pairs five agree and one does not.
    assert rank_agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(
        4 / 6
    )
    # One pair is tied in the second: (5 - 0) / sqrt(6 * 5).
    tied = rank_agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 3]))
    assert tied == pytest.approx(5 / np.sqrt(30))


@pytest.mark.parametrize("first", [[1.0, 1.0, 1.0], [2.0]])
def test_what_is_constant_has_no_agreement(first):
    assert rank_agreement(np.array(first), np.arange(float(len(first)))) is None


def test_halves_that_agree_and_halves_that_do_not():
    chance = np.random.default_rng(0)
    truth = chance.normal(size=24)
    halves = truth + 0.2 * chance.normal(size=(2, 24))
    found = repeatability(halves)
    assert (found.uninformative, found.note) == (None, None)
    assert found.tau == pytest.approx(stats.kendalltau(*halves).statistic)
    noise = repeatability(chance.normal(size=(2, 24)))
    assert noise.p_value > 0.05
    assert noise.uninformative.startswith("two halves of the rows agree no more than by chance")
    assert f"Kendall's τ {noise.tau:.2f} over 24 values" in noise.uninformative
    assert noise.note == f"uninformative: {noise.uninformative}"


def test_halves_that_disagree_are_uninformative():
    ascending = np.arange(10.0)
    assert repeatability(np.stack([ascending, -ascending])).uninformative is not None


def test_sites_that_share_a_value_count_once():
    # Six sites of each of three types: perfect agreement, and three values prove nothing.
    values = np.repeat([1.0, 2.0, 3.0], 6)
    found = repeatability(np.stack([values, 2 * values]))
    assert (found.tau, found.num_values) == (pytest.approx(1), 3)
    assert found.p_value == pytest.approx(1 / 6)
    # That is no verdict: nothing shows that they say nothing.
    assert found.uninformative is None
    assert found.note.startswith("3 different values are too few to tell whether halves")


def test_a_constant_half():
    found = repeatability(np.array([[1.0, 1, 1], [1, 2, 3]]))
    assert (found.tau, found.p_value) == (None, None)
    assert found.uninformative == "a half of the rows gives every site the same value"


def draws(chance, centre, count):
    """Scores around a centre, each draw in a unit of its own."""
    logs = centre + 0.3 * chance.normal(size=(count, len(centre)))
    return np.exp(logs + chance.normal(size=(count, 1)))


def test_one_more_draw_of_a_null_seldom_passes_for_informative():
    chance = np.random.default_rng(1)
    centre = chance.normal(size=24)
    passed = 0
    for _ in range(300):
        worlds = draws(chance, centre, NUM_NULLS + 1)
        passed += against_nulls(worlds[0], worlds[1:]).informative
    # At most one of seven, 43 of 300, as worlds can be exchanged; far fewer where they are alike.
    assert passed <= 30


def test_another_ranking_differs_from_the_null():
    chance = np.random.default_rng(2)
    centre = chance.normal(size=24)
    found = against_nulls(np.exp(chance.normal(size=24)), draws(chance, centre, NUM_NULLS))
    assert found.informative
    assert found.agreement < found.among


def test_a_ranking_differs_from_draws_that_rank_by_chance():
    chance = np.random.default_rng(3)
    nearly_equal = np.exp(0.02 * chance.normal(size=(NUM_NULLS + 1, 24)))
    assert against_nulls(np.exp(0.2 * chance.normal(size=24)), nearly_equal[1:]).informative
    found = against_nulls(nearly_equal[0], nearly_equal[1:])
    assert abs(found.among) < 0.2
    assert not found.informative


def test_the_figures_of_a_null_check_by_hand():
    a, b = np.array([1.0, 2, 4, 0]), np.array([1.0, 4, 2, 0])
    found = against_nulls(np.array([8.0, 4, 2, 1]), np.stack([a, b]))
    # Ratios are 2 to the powers of (3, 1, -1) and (3, 0, 0), and of (0, -1, 1) between the draws.
    assert found.distance == pytest.approx(np.log(2) * np.std([3, 0, 0]))
    assert found.spread == pytest.approx(np.log(2) * np.sqrt(2 / 3))
    # Ranks are those of all four sites.
    assert found.agreement == pytest.approx((0 + 2 / 6) / 2)
    assert found.among == pytest.approx(4 / 6)


def test_constant_scores_and_equal_scores_are_not_informative():
    values = np.arange(1.0, 6.0)
    same = against_nulls(values, np.stack([values, 2 * values, 3 * values]))
    assert (same.distance, same.spread) == (pytest.approx(0), pytest.approx(0))
    assert (same.agreement, same.informative) == (pytest.approx(1), False)
    flat = against_nulls(np.ones(5), np.ones((3, 5)))
    assert (flat.agreement, flat.among, flat.informative) == (None, None, False)
    nothing = against_nulls(np.zeros(5), np.zeros((3, 5)))
    assert (nothing.distance, nothing.informative) == (0, False)


def test_what_is_better_comes_out_larger():
    scores = {"a": 1.0, "b": 3.0}
    assert oriented(table_of(scores), ["b", "a"]).tolist() == [3, 1]
    assert oriented(table_of(scores, higher_is_better=False), ["b", "a"]).tolist() == [-3, -1]


def test_the_verdict_is_written_and_read_and_older_files_have_none():
    given = table_of({"a": 1.0}, uninformative=("every site has the same value",))
    plain = json.loads(json.dumps(given.to_json()))
    assert plain["uninformative"] == ["every site has the same value"]
    assert ScoreTable.from_json(plain) == given
    del plain["uninformative"]
    assert ScoreTable.from_json(plain).uninformative == ()
