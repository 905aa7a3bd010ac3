"""When two rankings agree, when that is more than chance, and when a null would do as well."""

import numpy as np
import pytest
from scipy import stats

from loratlas.allocate.agreement import (
    NUM_NULLS,
    against_nulls,
    oriented,
    rank_agreement,
    repeatability,
    uninformative,
)
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore


def table(values, *, higher_is_better=True, notes=()):
    return ScoreTable(
        method="m",
        unit="u",
        higher_is_better=higher_is_better,
        model="x",
        anatomy_digest="d",
        cost=ScoringCost(),
        scores=tuple(SiteScore(path=path, value=value) for path, value in values.items()),
        notes=notes,
    )


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
    assert found.says is None
    assert found.tau == pytest.approx(stats.kendalltau(*halves).statistic)
    noise = repeatability(chance.normal(size=(2, 24)))
    assert noise.p_value > 0.05
    assert noise.says.startswith("uninformative: two halves of the rows agree no more than by ch")
    assert f"Kendall's τ {noise.tau:.2f} over 24 values" in noise.says


def test_halves_that_disagree_are_uninformative():
    ascending = np.arange(10.0)
    assert repeatability(np.stack([ascending, -ascending])).says is not None


def test_sites_that_share_a_value_count_once():
    # Six sites of each of three types: perfect agreement, and three values prove nothing.
    values = np.repeat([1.0, 2.0, 3.0], 6)
    found = repeatability(np.stack([values, 2 * values]))
    assert (found.tau, found.num_values) == (pytest.approx(1), 3)
    assert found.p_value == pytest.approx(1 / 6)
    assert found.says.startswith("3 different values are too few to tell whether halves")


def test_a_constant_half():
    found = repeatability(np.array([[1.0, 1, 1], [1, 2, 3]]))
    assert (found.tau, found.p_value) == (None, None)
    assert found.says == "uninformative: a half of the rows gives every site the same value"


def draws(chance, centre, count):
    return centre + 0.3 * chance.normal(size=(count, len(centre)))


def test_one_more_draw_of_a_null_passes_for_informative_as_often_as_is_allowed():
    chance = np.random.default_rng(1)
    centre = chance.normal(size=24)
    passed = 0
    for _ in range(300):
        worlds = draws(chance, centre, NUM_NULLS + 1)
        passed += against_nulls(worlds[0], worlds[1:]).informative
    # 5% of 300 is 15, with a standard deviation of 3.8; the bound is approximate.
    assert 3 <= passed <= 30


def test_another_ranking_differs_from_the_null():
    chance = np.random.default_rng(2)
    centre = chance.normal(size=24)
    found = against_nulls(chance.normal(size=24), draws(chance, centre, NUM_NULLS))
    assert found.informative
    assert found.agreement < found.bound < found.among


def test_the_figures_of_a_null_check_by_hand():
    a, b, c = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]), np.array([2.0, 1, 4, 3])
    found = against_nulls(np.array([4.0, 3, 2, 1]), np.stack([a, b, c]))
    assert found.agreement == pytest.approx((-1 - 2 / 3 - 1 / 3) / 3)
    each = np.array([(2 / 3 + 1 / 3) / 2, (2 / 3 + 2 / 3) / 2, (1 / 3 + 2 / 3) / 2])
    assert found.among == pytest.approx(each.mean())
    reach = stats.t.ppf(0.95, 2) * np.sqrt(4 / 3) * 2 * each.std(ddof=1)
    assert found.bound == pytest.approx(each.mean() - reach)


def test_constant_scores_are_never_informative():
    values = np.arange(5.0)
    for subject, nulls in ((np.ones(5), [values] * 4), (values, [np.ones(5)] * 4)):
        found = against_nulls(subject, np.stack(nulls))
        assert (found.agreement, found.informative) == (None, False)
    same = against_nulls(values, np.stack([values] * 4))
    assert (same.agreement, same.bound) == (pytest.approx(1), pytest.approx(1))
    assert not same.informative


def test_what_is_better_comes_out_larger():
    scores = {"a": 1.0, "b": 3.0}
    assert oriented(table(scores), ["b", "a"]).tolist() == [3, 1]
    assert oriented(table(scores, higher_is_better=False), ["b", "a"]).tolist() == [-3, -1]


def test_notes_that_say_so_are_found():
    notes = ("trained at rank 8", "uninformative: every site has the same value")
    assert uninformative(table({"a": 1.0}, notes=notes)) == notes[1:]
