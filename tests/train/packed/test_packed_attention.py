"""Rows in one flat sequence attend to themselves alone, as each of them would by itself."""

from itertools import pairwise

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from loratlas.train.packed import attention
from loratlas.train.packed.attention import RowAttentionError, attend_by_row

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
# Rows of many lengths, one of them a single token; then mostly rows of one length.
BOUNDS = {
    "many lengths": (0, 5, 6, 13, 22),
    "one length": (0, 4, 8, 12),
    "few lengths": (0, 3, 8, 11, 16, 19, 24, 27),
}


class Module(torch.nn.Module):
    num_key_value_groups = HEADS // KEY_HEADS

    def __init__(self, *, is_causal=True):
        super().__init__()
        self.is_causal = is_causal
        self.eval()


@pytest.fixture(params=BOUNDS.values(), ids=BOUNDS)
def bounds(request):
    return request.param


def states(tokens, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, heads, tokens, WIDTH, generator=chance, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def one_by_one(module, query, key, value, bounds, **more):
    return torch.cat(
        [
            sdpa_attention_forward(
                module, *(each[:, :, start:stop] for each in (query, key, value)), None, **more
            )[0]
            for start, stop in pairwise(bounds)
        ],
        dim=1,
    )


@pytest.mark.parametrize("is_causal", [True, False])
def test_each_row_is_what_it_is_alone(bounds, is_causal):
    module, given = Module(is_causal=is_causal), states(bounds[-1])
    found, weights = attend_by_row(module, *given, None, row_bounds=bounds, scaling=0.3)
    wanted = one_by_one(module, *given, bounds, scaling=0.3)
    assert weights is None
    assert torch.equal(found, wanted)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, given, upstream)
    for one, other in zip(gradients, torch.autograd.grad(wanted, given, upstream), strict=True):
        assert torch.equal(one, other)


def test_neighbours_change_no_bit(bounds):
    """Another row's tokens, and another order of the rows."""
    module, given = Module(), states(bounds[-1])
    found, _ = attend_by_row(module, *given, None, row_bounds=bounds)
    changed = [each.detach().clone() for each in given]
    start, stop = bounds[1], bounds[2]
    for each in changed:
        each[:, :, start:stop] = 7
    other, _ = attend_by_row(module, *changed, None, row_bounds=bounds)
    assert torch.equal(found[:, :start], other[:, :start])
    assert torch.equal(found[:, stop:], other[:, stop:])
    assert not torch.equal(found, other)

    rows = [slice(*each) for each in pairwise(bounds)]
    turned = [torch.cat([each[:, :, row] for row in rows[::-1]], dim=2) for each in given]
    lengths = [row.stop - row.start for row in rows[::-1]]
    turned_bounds = [sum(lengths[:place]) for place in range(len(lengths) + 1)]
    back, _ = attend_by_row(module, *turned, None, row_bounds=turned_bounds)
    last = rows[-1]
    assert torch.equal(back[:, : last.stop - last.start], found[:, last])


def test_rows_side_by_side_are_the_same_rows(bounds):
    """What a GPU gets, on the CPU; padded keys stand behind every query that could see them."""
    module, given = Module(), states(bounds[-1])
    found = attention._side_by_side(module, *given, bounds, {"scaling": 0.3})
    wanted = one_by_one(module, *given, bounds, scaling=0.3)
    # fp32 sums over at most 9 keys, in blocks of another size
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(found.sum(), given)
    for one, other in zip(gradients, torch.autograd.grad(wanted.sum(), given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("told", "module", "wanted"),
    [
        ({}, Module(), True),
        ({}, Module(is_causal=False), False),
        ({"is_causal": False}, Module(), False),
        ({"is_causal": True}, Module(is_causal=False), True),
        ({"is_causal": None}, Module(), True),
        ({}, torch.nn.Identity(), True),
    ],
)
def test_who_is_causal(told, module, wanted):
    assert attention._causal(module, told) is wanted


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"row_bounds": None}, "row by row attention: no row bounds"),
        ({"softcap": 30.0}, "row by row attention: softcap"),
        ({"s_aux": torch.zeros(4)}, "row by row attention: s_aux"),
        ({"position_bias": torch.zeros(1)}, "row by row attention: position_bias"),
        ({"sliding_window": 6}, "a row of 7 tokens exceeds the window 6"),
    ],
)
def test_what_rows_do_not_have_is_refused(more, message):
    with pytest.raises(RowAttentionError, match=message):
        attend_by_row(Module(), *states(9), None, **({"row_bounds": (0, 2, 9)} | more))


def test_a_mask_is_refused():
    with pytest.raises(RowAttentionError, match="row by row attention"):
        attend_by_row(Module(), *states(9), torch.ones(1, 1, 9, 9), row_bounds=(0, 2, 9))


def test_a_window_that_no_row_exceeds_changes_nothing():
    given = states(9)
    free, _ = attend_by_row(Module(), *given, None, row_bounds=(0, 2, 9))
    narrow, _ = attend_by_row(Module(), *given, None, row_bounds=(0, 2, 9), sliding_window=7)
    assert torch.equal(free, narrow)


def test_options_that_are_not_set_are_let_through():
    given = states(9)
    options = {"softcap": None, "s_aux": None, "position_bias": None, "sliding_window": None}
    found, _ = attend_by_row(Module(), *given, None, row_bounds=(0, 2, 9), **options)
    assert torch.equal(found, one_by_one(Module(), *given, (0, 2, 9)))
