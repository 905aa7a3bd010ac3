"""The gradients that are written by hand are those of autograd, in float64."""

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from loratlas.train.packed.masks import Masks
from loratlas.train.packed.sites import Routing, Span, adapted, forward_replaced
from loratlas.train.packed.slots import SlotSite

D_IN, D_OUT = 6, 5


class Slot:
    """What a site reads of a trial's slot, in float64."""

    def __init__(self, seed, rank, dropout=0.0):
        chance = torch.Generator().manual_seed(seed)
        self.values = torch.zeros(())
        self.seed, self.dropout = seed, dropout
        a = torch.randn(rank, D_IN, dtype=torch.float64, generator=chance)
        b = torch.randn(D_OUT, rank, dtype=torch.float64, generator=chance)
        self.sites = {
            "map": SlotSite(a, b, torch.zeros_like(a), torch.zeros_like(b), scale=0.5 * (seed + 1))
        }

    @property
    def site(self):
        return self.sites["map"]

    def mask_generator(self, step, path, row):
        return torch.Generator().manual_seed(1000 * self.seed + 10 * step + row + len(path))


def model_of(kind):
    torch.manual_seed(0)
    model = torch.nn.Module()
    if kind == "conv1d":
        model.map = Conv1D(D_OUT, D_IN)
        torch.nn.init.normal_(model.map.bias)
    else:
        model.map = torch.nn.Linear(D_IN, D_OUT, bias=kind == "linear")
    return model.double().requires_grad_(False)


def frozen(module, x):
    weight = module.weight if isinstance(module, Conv1D) else module.weight.t()
    return x @ weight + (0 if module.bias is None else module.bias)


def by_autograd(module, x, upstream, members):
    """The same sum in plain torch; returns output and gradients of x and of each A and B."""
    x = x.clone().requires_grad_()
    leaves = [(slot.site.a.clone(), slot.site.b.clone()) for slot, *_ in members]
    for a, b in leaves:
        a.requires_grad_()
        b.requires_grad_()
    parts = frozen(module, x).flatten(0, -2)
    flat = x.flatten(0, -2)
    for (slot, start, stop, factor), (a, b) in zip(members, leaves, strict=True):
        delta = slot.site.scale * (flat[start:stop] * factor) @ a.t() @ b.t()
        spread = torch.zeros_like(parts)
        spread[start:stop] = 1
        parts = parts + spread * torch.nn.functional.pad(delta, (0, 0, start, len(flat) - stop))
    y = parts.view(*x.shape[:-1], D_OUT)
    y.backward(upstream)
    return y.detach(), x.grad, [(a.grad, b.grad) for a, b in leaves]


@pytest.fixture(params=["linear", "linear without bias", "conv1d"])
def model(request):
    return model_of(request.param)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_two_trials_beside_one_that_is_not_adapted_there(model):
    x, upstream = torch.randn(1, 9, D_IN).double(), torch.randn(1, 9, D_OUT).double()
    slots = [Slot(0, rank=2), Slot(1, rank=3)]
    routing = Routing(spans=[Span(0, 0, 4), Span(7, 4, 6), Span(1, 6, 9)])
    wanted, dx, grads = by_autograd(
        model.map, x, upstream, [(slots[0], 0, 4, 1), (slots[1], 6, 9, 1)]
    )
    x.requires_grad_()
    with adapted(model, slots, routing):
        y = model.map(x)
        y.backward(upstream)
    close(y.detach(), wanted)
    close(x.grad, dx)
    for slot, (grad_a, grad_b) in zip(slots, grads, strict=True):
        close(slot.site.grad_a, grad_a)
        close(slot.site.grad_b, grad_b)
    assert "forward" not in model.map.__dict__


def test_rows_of_a_filled_up_batch_are_counted_in_rows(model):
    x, upstream = torch.randn(3, 4, D_IN).double(), torch.randn(3, 4, D_OUT).double()
    slots = [Slot(0, rank=2), Slot(1, rank=3)]
    wanted, _, grads = by_autograd(
        model.map, x, upstream, [(slots[0], 0, 4, 1), (slots[1], 4, 12, 1)]
    )
    with adapted(model, slots, Routing(spans=[Span(0, 0, 1), Span(1, 1, 3)])):
        y = model.map(x)
        y.backward(upstream)
    close(y.detach(), wanted)
    for slot, (grad_a, grad_b) in zip(slots, grads, strict=True):
        close(slot.site.grad_a, grad_a)
        close(slot.site.grad_b, grad_b)


@pytest.mark.parametrize("by_row", [False, True])
def test_dropout_scales_what_it_keeps_and_its_gradient(model, by_row):
    x, upstream = torch.randn(3, 4, D_IN).double(), torch.randn(3, 4, D_OUT).double()
    slot = Slot(0, rank=2, dropout=0.25)
    units, shape = (3, (4, D_IN)) if by_row else (12, (1, D_IN))
    keep = Masks(5, by_row=by_row).keep(slot, 0, "map", units=units, shape=shape)
    assert keep.shape == (12, D_IN)
    assert 0 < keep.sum() < keep.numel()
    factor = keep.double() / 0.75
    wanted, dx, ((grad_a, grad_b),) = by_autograd(model.map, x, upstream, [(slot, 0, 12, factor)])
    x.requires_grad_()
    routing = Routing(spans=[Span(0, 0, units)], masks=Masks(5, by_row=by_row))
    with adapted(model, [slot], routing):
        y = model.map(x)
        y.backward(upstream)
    close(y.detach(), wanted)
    close(x.grad, dx)
    close(slot.site.grad_a, grad_a)
    close(slot.site.grad_b, grad_b)


def test_a_map_used_twice_adds_up_its_gradients(model):
    x, slot = torch.randn(1, 4, D_IN).double(), Slot(0, rank=2)
    upstream = torch.randn(1, 4, D_OUT).double()
    _, _, ((grad_a, grad_b),) = by_autograd(model.map, x, upstream, [(slot, 0, 4, 1)])
    with adapted(model, [slot], Routing(spans=[Span(0, 0, 4)])):
        (model.map(x) + model.map(x)).backward(upstream)
    close(slot.site.grad_a, 2 * grad_a)
    close(slot.site.grad_b, 2 * grad_b)


def test_what_comes_out_can_be_changed_in_place(model):
    """Some models scale their queries so."""
    x, slot = torch.randn(1, 4, D_IN).double(), Slot(0, rank=2)
    upstream = torch.randn(1, 4, D_OUT).double()
    _, dx, ((grad_a, _),) = by_autograd(model.map, x, 3 * upstream, [(slot, 0, 4, 1)])
    x.requires_grad_()
    with adapted(model, [slot], Routing(spans=[Span(0, 0, 4)])):
        y = model.map(x)
        y *= 3
        y.backward(upstream)
    close(x.grad, dx)
    close(slot.site.grad_a, grad_a)


def test_without_spans_the_map_is_the_frozen_one(model):
    x, slot = torch.randn(2, 4, D_IN).double(), Slot(0, rank=2)
    with adapted(model, [slot], Routing()):
        y = model.map(x)
    assert torch.equal(y, model.map(x))
    assert not y.requires_grad


def test_inputs_that_need_no_gradient_get_none(model):
    x, slot = torch.randn(1, 4, D_IN).double(), Slot(0, rank=2)
    with adapted(model, [slot], Routing(spans=[Span(0, 0, 4)])):
        y = model.map(x)
        y.sum().backward()
    assert x.grad is None
    assert slot.site.grad_a.any()


def test_what_does_not_divide_into_rows_is_no_silent_matter(model):
    with (
        adapted(model, [Slot(0, rank=2)], Routing(spans=[Span(0, 0, 3)])),
        pytest.raises(AssertionError, match=r"map: \(2, 4, 6\) does not divide into 3 rows"),
    ):
        model.map(torch.randn(2, 4, D_IN).double())


def test_a_path_that_the_model_does_not_have_is_refused(model):
    slot = Slot(0, rank=2)
    slot.sites["mop"] = slot.site
    with (
        pytest.raises(AssertionError, match="the model has no module mop"),
        adapted(model, [slot], Routing()),
    ):
        pass
    assert "forward" not in model.map.__dict__


def test_a_replaced_forward_pass_comes_back_after_an_error(model):
    def failing():
        with forward_replaced(model.map, lambda x: x):
            assert model.map(3) == 3
            with forward_replaced(model.map, lambda x: -x):
                assert model.map(3) == -3
            assert model.map(3) == 3
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert "forward" not in model.map.__dict__
