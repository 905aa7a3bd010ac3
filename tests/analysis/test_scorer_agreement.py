"""Scorers beside brute force: Kendall's τ by hand and by scipy, and how far it may be off."""

import numpy as np
import pytest
from scipy import stats

import anatomies
from loratlas.analysis.agreement import (
    agreements,
    bootstrap_interval,
    by_group,
    trivial_predictors,
)
from loratlas.anatomy.sites import Role, Site
from loratlas.study.groups import SiteGroup, group_sites
from made_tables import table_of


def site(path, layer, role="attention.q", d_in=8, d_out=8):
    stack = None if layer is None else "decoder"
    return Site(path=path, stack=stack, layer=layer, role=Role.parse(role), d_in=d_in, d_out=d_out)


def groups_of(*sizes):
    """Groups of so many sites, one layer each; the layers and shapes differ."""
    return tuple(
        SiteGroup(
            name=f"g{number}",
            sites=tuple(site(f"{number}.{n}", number, d_in=8 + number) for n in range(size)),
        )
        for number, size in enumerate(sizes)
    )


def table(groups, values, method="m", **fields):
    """Scores that give every site of a group the same value."""
    by_path = {
        each.path: value
        for group, value in zip(groups, values, strict=True)
        for each in group.sites
    }
    return table_of(by_path, method=method, **fields)


def model_of(groups):
    """The model that these groups are of."""
    sites = [each for group in groups for each in group.sites]
    stacks = {}
    for each in sites:
        if each.stack is not None:
            stacks[each.stack] = max(stacks.get(each.stack, 0), each.layer + 1)
    return anatomies.anatomy("made", stacks, sites, 0, tied_head=False)


def held(truth, tables, groups, **more):
    return agreements(truth, tables, groups, model_of(groups), seed=0, **more)


SIX = groups_of(1, 1, 1, 1, 1, 1)
TRUTH = [6.0, 5, 4, 3, 2, 1]


def test_by_hand_and_with_a_direction():
    # Of 15 pairs one is exchanged: (14 - 1) / 15.
    near = table(SIX, [6, 5, 4, 3, 1, 2], "near")
    turned = table(SIX, [1, 2, 3, 4, 5, 6], "turned", higher_is_better=False)
    found = held(table(SIX, TRUTH), [near, turned], SIX)
    assert [each.method for each in found] == [
        "near", "turned", "parameters", "depth", "d_in", "random",
    ]  # fmt: skip
    assert [each.trivial for each in found] == [False, False, True, True, True, True]
    assert found[0].tau == pytest.approx(13 / 15)
    assert found[1].tau == pytest.approx(1)
    assert found[1].interval == pytest.approx((1, 1))
    assert found[3].tau == pytest.approx(-1)
    assert all(each.num_groups == 6 and each.says == () for each in found)
    low, high = found[0].interval
    assert low < 13 / 15 < high == pytest.approx(1)


def test_the_bootstrap_is_that_of_scipy():
    chance = np.random.default_rng(3)
    first, second = chance.normal(size=(2, 12))
    second = second + first
    second[3] = second[4]
    found = bootstrap_interval(first, second, seed=7, num_resamples=400)
    drawn = np.random.default_rng(7).integers(12, size=(400, 12))
    taus = [stats.kendalltau(first[rows], second[rows]).statistic for rows in drawn]
    assert found == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])))


def test_an_interval_narrows_with_groups_and_repeats_with_its_seed():
    chance = np.random.default_rng(4)
    first = chance.normal(size=64)
    second = first + chance.normal(size=64)
    few = bootstrap_interval(first[:16], second[:16], seed=0)
    many = bootstrap_interval(first, second, seed=0)
    assert many[1] - many[0] < 0.7 * (few[1] - few[0])
    assert many == bootstrap_interval(first, second, seed=0)
    assert many != bootstrap_interval(first, second, seed=1)


def test_resamples_without_a_ranking_are_left_out():
    # Five of six groups tie: one resample in three has nothing but ties.
    first = np.array([0.0, 0, 0, 0, 0, 1])
    low, high = bootstrap_interval(first, np.arange(6.0), seed=0)
    assert np.isfinite([low, high]).all()


def test_values_of_a_group_are_averaged_or_summed():
    groups = groups_of(1, 3)
    scores = table(groups, [2.0, 1.0])
    assert by_group(scores, groups, "mean").tolist() == [2, 1]
    assert by_group(scores, groups, "sum").tolist() == [2, 3]
    lower = table(groups, [2.0, 1.0], higher_is_better=False)
    assert by_group(lower, groups, "mean").tolist() == [-2, -1]


def test_the_way_of_combining_is_that_of_scorers_and_not_of_the_truth():
    groups = groups_of(1, 2, 3, 4, 5)
    truth = table(groups, [5, 4, 3, 2, 1])
    same = table(groups, [5, 4, 3, 2, 1])
    (averaged, *_) = held(truth, [same], groups)
    (summed, *_) = held(truth, [same], groups, combine="sum")
    assert averaged.tau == pytest.approx(1)
    # Sums are 5, 8, 9, 8, 5.
    assert summed.tau == pytest.approx(stats.kendalltau([5, 8, 9, 8, 5], [5, 4, 3, 2, 1]).statistic)


def test_trivial_predictors():
    outside = (
        SiteGroup(name="head", sites=(site("head", None, "head", 8, 100),)),
        SiteGroup(name="embedding", sites=(site("e", None, "embedding", 100, 8),)),
    )
    groups = (*groups_of(1, 2), *outside)
    found = trivial_predictors(groups, model_of(groups), seed=5)
    assert found["parameters"].tolist() == [16, 34, 108, 108]
    assert found["depth"].tolist() == [1, 2, 3, 0]
    assert found["d_in"].tolist() == [8, 9, 8, 100]
    again = trivial_predictors(groups, model_of(groups), seed=5)
    assert found["random"].tolist() == again["random"].tolist()


def test_a_decoder_is_deeper_than_its_encoder():
    model = anatomies.t5(encoder=2, decoder=3)
    groups = group_sites([each for each in model.sites if each.in_block], model, "layer")
    found = trivial_predictors(groups, model, seed=0)["depth"]
    assert found.tolist() == [1, 2, 3, 4, 5]


def test_what_cannot_be_said():
    flat = table(SIX, [1] * 6, "flat")
    (found, *_) = held(table(SIX, TRUTH), [flat], SIX)
    assert (found.tau, found.interval) == (None, None)
    assert found.says == ("It says the same of every group: there is nothing to rank.",)
    (found, *_) = held(flat, [table(SIX, TRUTH)], SIX)
    assert found.says == ("Brute force says the same of every group: there is nothing to rank.",)
    four = SIX[:4]
    (found, *_) = held(table(four, [1, 2, 3, 4]), [table(four, [1, 2, 3, 4])], four)
    assert (found.tau, found.interval) == (pytest.approx(1), None)
    assert found.says == ("4 groups: fewer than 5 are too few for an interval.",)
