"""Dropout on adapters: each trial's own draws, whatever is packed with it."""

import math

import pytest
import torch
from packed_cases import Trial

from loratlas.train.packed.masks import Masks
from loratlas.train.packed.passes import Passes

DROPPED = [
    Trial(rule="all", seed=0, dropout=0.3),
    Trial(rule="attention", seed=1, dropout=0.1),
    Trial(rule="all @ layers(1..)", seed=0, dropout=0.3),
    Trial(rule="all", seed=2),
]
# Rows stand in other passes, and what is done with them is the same sum in another order; one other
# mask would be 1e-2.
ROUNDING = 1e-5


@pytest.fixture
def slot(gpt2):
    (slot,) = gpt2.slots([Trial(rule="all", seed=0, dropout=0.3)])
    return slot


def drawn(slot, parts, *, by_row, length=4, step=0, path="x"):
    masks = Masks(step, by_row=by_row)
    shape = (length, 8) if by_row else (1, 8)
    return torch.cat([masks.keep(slot, 0, path, units=n, shape=shape) for n in parts])


@pytest.mark.parametrize("by_row", [False, True])
def test_parts_of_a_window_draw_what_the_whole_does(slot, by_row):
    whole = drawn(slot, [7], by_row=by_row)
    for parts in ([3, 4], [1] * 7, [6, 1]):
        assert torch.equal(drawn(slot, parts, by_row=by_row), whole)


def test_rows_that_are_filled_up_further_keep_their_masks(slot):
    short = drawn(slot, [5], by_row=True, length=4).view(5, 4, 8)
    long = drawn(slot, [5], by_row=True, length=9).view(5, 9, 8)
    assert torch.equal(short, long[:, :4])


@pytest.mark.parametrize("by_row", [False, True])
def test_the_share_that_is_kept(slot, by_row):
    keep = drawn(slot, [500], by_row=by_row)
    # five standard deviations of a share of independent draws
    assert float(keep.float().mean()) == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / keep.numel()))
    rows = keep.view(500, -1).float().mean(dim=0)
    assert float((rows - 0.7).abs().max()) < 5 * math.sqrt(0.21 / 500)


@pytest.mark.parametrize("by_row", [False, True])
def test_step_site_and_seed_each_change_the_masks(gpt2, slot, by_row):
    first = drawn(slot, [9], by_row=by_row)
    assert not torch.equal(first, drawn(slot, [9], by_row=by_row, step=1))
    assert not torch.equal(first, drawn(slot, [9], by_row=by_row, path="y"))
    (other,) = gpt2.slots([Trial(rule="all", seed=1, dropout=0.3)])
    assert not torch.equal(first, drawn(other, [9], by_row=by_row))
    assert torch.equal(first, drawn(slot, [9], by_row=by_row))


def test_no_row_draws_what_another_does(slot):
    rows = drawn(slot, [6], by_row=True, length=9).view(6, -1)
    assert len({tuple(row.tolist()) for row in rows}) == 6


@pytest.fixture(scope="module")
def packed(gpt2):
    return gpt2.packed(DROPPED)


def test_the_same_pack_twice_is_equal_bit_for_bit(gpt2, packed):
    again = gpt2.packed(DROPPED)
    assert all(one.same_bits(other) for one, other in zip(again, packed, strict=True))


def test_the_global_generator_is_neither_read_nor_moved(gpt2, packed):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = gpt2.packed(DROPPED)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(one.same_bits(other) for one, other in zip(again, packed, strict=True))


def test_dropout_does_something_to_the_trials_that_have_it(gpt2, packed):
    plain = gpt2.packed([Trial(rule=t.rule, seed=t.seed) for t in DROPPED])
    distances = [one.distance(other) for one, other in zip(packed, plain, strict=True)]
    assert min(distances[:3]) > 1e-3
    assert distances[3] <= ROUNDING


@pytest.mark.parametrize("which", [[0], [1], [2, 0], [3, 2, 1]])
def test_masks_do_not_depend_on_the_pack(gpt2, packed, which):
    found = gpt2.packed([DROPPED[number] for number in which])
    for number, trained in zip(which, found, strict=True):
        assert trained.distance(packed[number]) <= ROUNDING


@pytest.mark.parametrize("limit", [150, 60, 1])
def test_masks_do_not_depend_on_the_number_of_passes(gpt2, packed, limit):
    found = gpt2.packed(DROPPED, passes=Passes(limit))
    for one, other in zip(found, packed, strict=True):
        assert one.distance(other) <= ROUNDING


@pytest.mark.parametrize("family", ["t5", "roberta"])
def test_nor_where_rows_are_filled_up(request, family):
    """The longest row of a pack is another one than that of a trial, and of a part of it."""
    case = request.getfixturevalue(family)
    together = case.packed(DROPPED, base=case.whole())
    for number in (0, 2):
        (alone,) = case.packed([DROPPED[number]], base=case.whole())
        assert alone.distance(together[number]) <= ROUNDING
    divided = case.packed(DROPPED, base=case.whole(), passes=Passes(60))
    for one, other in zip(divided, together, strict=True):
        assert one.distance(other) <= ROUNDING


def test_scoring_leaves_nothing_out(gpt2):
    slots = gpt2.slots(DROPPED)
    for slot in slots:
        for site in slot.sites.values():
            site.b.fill_(0.1)
    with gpt2.flat().opened(slots, gpt2.prefix()) as flow, torch.no_grad():
        flow.begin_step(0)
        first = flow.logits_of(0, gpt2.test)
        flow.begin_step(1)
        assert torch.equal(first, flow.logits_of(0, gpt2.test))
