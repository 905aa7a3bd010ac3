import math

import pytest

from loratlas.analysis.audit import ranking, swaps

CORPUS = {"full": {0: 3.0, 1: 3.1, 2: 3.05}, "attention": {0: 3.5, 1: 3.61, 2: 3.54}}


def reversed_by(step):
    """The pair the other way round, every seed by so many nats."""
    full = {seed: 8.0 + 0.01 * seed for seed in range(3)}
    return {"full": full, "attention": {seed: v - step for seed, v in full.items()}}


def test_a_swap_that_the_seeds_tell_apart_both_ways_is_a_contradiction():
    values = reversed_by(0.4)
    values["attention"][1] += 0.01
    (swap,) = swaps(values, CORPUS)
    assert (swap["better"], swap["worse"], swap["num_seeds"]) == ("full", "attention", 3)
    # (0.50 + 0.51 + 0.49) / 3, and the t interval of three values with sd 0.01.
    assert swap["loss_difference"] == pytest.approx(0.5)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert swap["loss_interval"] == pytest.approx([0.5 - half, 0.5 + half], rel=1e-5)
    assert swap["log_perplexity_difference"] == pytest.approx(-0.4 + 0.01 / 3)
    assert swap["contradicts"] is True


def test_a_swap_of_what_the_loss_does_not_tell_apart_is_noise():
    near = {"full": {0: 3.0, 1: 3.2}, "attention": {0: 3.1, 1: 3.12}}
    values = {"full": {0: 8.0, 1: 8.0}, "attention": {0: 7.5, 1: 7.51}}
    (swap,) = swaps(values, near)
    assert swap["loss_difference"] == pytest.approx(0.01)
    assert swap["contradicts"] is False


def test_a_swap_that_is_noise_in_the_definition_is_noise():
    values = {"full": {0: 8.0, 1: 8.0, 2: 8.0}, "attention": {0: 7.5, 1: 8.2, 2: 8.1}}
    (swap,) = swaps(values, CORPUS)
    assert swap["contradicts"] is False


def test_one_seed_tells_no_spread():
    one = {name: {0: seeds[0]} for name, seeds in CORPUS.items()}
    values = {"full": {0: 8.0}, "attention": {0: 7.0}}
    (swap,) = swaps(values, one)
    assert swap["loss_interval"] is swap["log_perplexity_interval"] is swap["contradicts"] is None


def test_only_seeds_of_both_are_paired():
    values = reversed_by(0.4)
    del values["full"][2]
    corpus = {"full": {0: 3.0, 1: 3.1}, "attention": CORPUS["attention"]}
    (swap,) = swaps(values, corpus)
    assert swap["num_seeds"] == 2


def test_equals_are_no_swap_and_stand_as_the_loss_has_them():
    values = {"full": {0: 8.0}, "attention": {0: 8.0}}
    assert swaps(values, CORPUS) == []
    assert ranking({"attention": 8.0, "full": 8.0}, {"attention": 3.5, "full": 3.0}) == [
        "full",
        "attention",
    ]


def test_a_placement_without_a_figure_is_in_no_ranking():
    assert ranking({"full": 8.0, "attention": None}, {"full": 3.0, "attention": 3.5}) == ["full"]
    assert swaps({"full": {0: 8.0}, "attention": {}}, CORPUS) == []
