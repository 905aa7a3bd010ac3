"""Ranks matched to a parameter count: figures by hand, and the nearest by trying them all."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anatomies
from loratlas.errors import PlacementError
from loratlas.placement.match import match_parameters, match_placement
from loratlas.placement.placement import LoraSpec, place

MEDIUM = anatomies.gpt2()
LLAMA = anatomies.llama()
LORA = LoraSpec(rank=15, alpha=30)


@pytest.mark.parametrize(("rule", "rank"), [("all", 15), ("attention", 40), ("feed_forward", 24)])
def test_dialogpt_medium_matched_to_all_at_rank_15(rule, rank):
    target = place(MEDIUM, "all", rank=15, alpha=30).trainable_parameters
    match = match_parameters(rule, MEDIUM, target, lora=LORA)
    assert {adapter.rank for adapter in match.placement.adapters} == {rank}
    assert match.placement.trainable_parameters == 5_898_240
    assert (match.difference, match.percent) == (0, 0)
    assert {match.placement.scale(adapter) for adapter in match.placement.adapters} == {2}


def test_parts_keep_their_ratio():
    match = match_parameters("attention:16 + feed_forward:4", MEDIUM, 10**7, lora=LORA)
    # 147,456 parameters per rank of attention, 245,760 of feed-forward: 16:4 at 3 times.
    ranks = {str(a.site.role.family): a.rank for a in match.placement.adapters}
    assert ranks == {"attention": 48, "feed_forward": 12}
    assert match.difference == 48 * 147_456 + 12 * 245_760 - 10**7 == 27_008
    assert match.percent == pytest.approx(0.27008)


def test_a_fixed_alpha_stays_fixed():
    lora = LoraSpec(rank=8, alpha=16, scaling="alpha/r")
    match = match_parameters("head", LLAMA, 960, lora=lora)
    assert [(a.rank, a.alpha) for a in match.placement.adapters] == [(10, 16)]


def test_of_two_equally_near_the_smaller_is_taken():
    # The head of the small Llama costs 32 + 64 = 96 a rank; 240 lies between ranks 2 and 3.
    match = match_parameters("head", LLAMA, 240, lora=LoraSpec())
    assert match.placement.adapters[0].rank == 2
    assert match.difference == -48
    assert match_parameters("head", LLAMA, 241, lora=LoraSpec()).placement.adapters[0].rank == 3


def test_no_rank_falls_below_one():
    match = match_parameters("all", LLAMA, 1, lora=LoraSpec())
    assert {adapter.rank for adapter in match.placement.adapters} == {1}
    assert match.difference == place(LLAMA, "all", rank=1).trainable_parameters - 1


def test_a_target_is_positive():
    with pytest.raises(PlacementError, match="a parameter target is positive, not 0"):
        match_parameters("all", LLAMA, 0, lora=LoraSpec())


def totals(placement):
    """Every total that some multiplier gives, up to a multiplier of 40."""
    per_rank = [(a.rank, a.site.parameters_per_rank) for a in placement.adapters]
    jumps = {Fraction(2 * k + 1, 2 * rank) for rank, _ in per_rank for k in range(40 * rank)} | {
        Fraction(0)
    }
    return {
        sum(cost * max(1, floor(rank * jump + Fraction(1, 2))) for rank, cost in per_rank)
        for jump in jumps
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 60_000))
def test_no_other_multiplier_comes_nearer(q, v, down, target):
    anatomy = anatomies.llama(layers=1)
    start = place(anatomy, f"attention.q:{q} + attention.v:{v} + feed_forward.down:{down}")
    reachable = totals(start)
    if target > max(reachable):
        return
    best = min(reachable, key=lambda total: (abs(total - target), total))
    found = match_placement(start, target, LoraSpec())
    assert found.placement.trainable_parameters == best
