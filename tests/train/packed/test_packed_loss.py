"""The loss and its gradient are those of cross-entropy, whatever goes through the head at once."""

import pytest
import torch
from packed_cases import Trial

from loratlas.train.adapters import new_adapters
from loratlas.train.packed import loss
from loratlas.train.packed.flow import Unit
from loratlas.train.packed.loss import backward, chunks, scored_spans
from loratlas.train.verify import wrapped_layers

VOCABULARY = 400
MIXED = [
    Trial(rule="all", seed=0),
    Trial(rule="attention @ layers(2)", seed=1),
    Trial(rule="feed_forward @ layers(1..)", seed=2),
]
ON_THE_HEAD = [Trial(rule="head", seed=0), Trial(rule="attention.o", seed=1)]


def loud(slots):
    """B is not zero, so that every A has a gradient."""
    for number, slot in enumerate(slots):
        chance = torch.Generator().manual_seed(number)
        for site in slot.sites.values():
            site.b.normal_(std=0.3, generator=chance)
    return slots


def one_step(case, trials, rows=6, logits=None, monkeypatch=None):
    """Gradients and Σ nll of one window of a pack, and how many tokens the head saw at a time."""
    if logits is not None:
        monkeypatch.setattr(loss, "_MOST_LOGITS", logits * VOCABULARY)
    slots = loud(case.slots(trials))
    some = case.rows[:rows]
    units = [Unit(number, some) for number in range(len(slots))]
    num_scored = {number: sum(row.num_scored for row in some) for number in range(len(slots))}
    sizes = []
    head = case.base.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda *given: sizes.append(given[-1].shape[:-1].numel()))
    with case.flat().opened(slots, case.prefix()) as flow:
        flow.begin_step(0)
        passed = flow.passed(units)
        assert not sizes
        found = backward(flow, passed, num_scored)
    hook.remove()
    return slots, {number: float(value) for number, value in found.items()}, sizes


@pytest.mark.parametrize("trials", [MIXED, ON_THE_HEAD], ids=["blocks", "head"])
def test_gradients_are_those_of_autograd_through_peft(gpt2, trials):
    """One window against torch's own cross-entropy and autograd, through PEFT's layers."""
    slots, nll, _ = one_step(gpt2, trials)
    some = gpt2.rows[:6]
    count = sum(row.num_scored for row in some)
    inputs = gpt2.base.collator(some)
    labels = inputs.pop("labels")[:, 1:].flatten()
    for number, (trial, slot) in enumerate(zip(trials, slots, strict=True)):
        with new_adapters(gpt2.base, slot.placement, seed=trial.seed, dropout=0.0) as model:
            layers = wrapped_layers(model)
            for path, layer in layers.items():
                layer.lora_B["default"].weight.data.copy_(slot.sites[path].b)
            logits = model(**inputs).logits[:, :-1].flatten(0, 1)
            total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            (total / count).backward()
            assert nll[number] == pytest.approx(total.item(), rel=1e-6)
            for path, layer in layers.items():
                for name, mine in (("lora_A", "grad_a"), ("lora_B", "grad_b")):
                    # fp32, sums over 100 tokens in another order
                    torch.testing.assert_close(
                        getattr(slot.sites[path], mine),
                        getattr(layer, name)["default"].weight.grad,
                        rtol=1e-4, atol=1e-6,
                    )  # fmt: skip


@pytest.mark.parametrize("trials", [MIXED, ON_THE_HEAD], ids=["blocks", "head"])
def test_chunks_of_the_head_change_nothing(gpt2, trials, monkeypatch):
    whole, nll, sizes = one_step(gpt2, trials)
    num_scored = sum(row.num_scored for row in gpt2.rows[:6])
    assert sum(sizes) == num_scored * len(trials)
    assert len(sizes) == (1 if trials is MIXED else len(trials))
    for limit in (50, 7, 1):
        parts, same, pieces = one_step(gpt2, trials, logits=limit, monkeypatch=monkeypatch)
        assert max(pieces) <= limit
        assert sum(pieces) == num_scored * len(trials)
        for number, value in same.items():
            assert value == pytest.approx(nll[number], rel=1e-6)
        for one, other in zip(parts, whole, strict=True):
            # products with the head's rows in other groups; nothing else differs
            torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-4, atol=1e-6)


def test_a_chunk_may_begin_in_one_trial_and_end_in_the_next(gpt2, monkeypatch):
    monkeypatch.setattr(loss, "_MOST_LOGITS", 30 * VOCABULARY)
    slots = gpt2.slots(MIXED)
    with gpt2.flat().opened(slots, gpt2.prefix()) as flow, torch.no_grad():
        passed = flow.passed([Unit(number, gpt2.rows[:4]) for number in range(3)])
        spans = scored_spans(passed)
        cut = list(chunks(flow, spans))
    assert [unit.slot for unit in passed.units] == [0, 2, 1]
    assert any(len(chunk) > 1 for chunk in cut)
    covered = [(span.slot, token) for chunk in cut for span in chunk for token in range(*span[1:])]
    assert covered == [(span.slot, token) for span in spans for token in range(*span[1:])]
    sizes = [chunk[-1].stop - chunk[0].start for chunk in cut]
    assert max(sizes) == 30


def test_the_written_out_gradient_is_autograds():
    chance = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(11, 30, generator=chance)).requires_grad_()
    wanted = torch.randint(30, (11,), generator=chance)
    weight = torch.rand(11, generator=chance)
    nll, gradient = loss._nll_and_gradient(logits.detach(), wanted, weight)
    each = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    (each * weight).sum().backward()
    torch.testing.assert_close(nll, each.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-5, atol=1e-7)


def test_the_loss_is_taken_in_fp32_of_logits_in_bf16():
    logits = (3 * torch.randn(5, 30, generator=torch.Generator().manual_seed(0))).bfloat16()
    wanted = torch.arange(5)
    nll, gradient = loss._nll_and_gradient(logits, wanted, torch.ones(5))
    assert nll.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    each = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    torch.testing.assert_close(nll, each, rtol=1e-6, atol=1e-6)


def test_logits_of_minus_infinity_are_no_nan():
    """Some models forbid tokens so."""
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    nll, gradient = loss._nll_and_gradient(logits, torch.tensor([1]), torch.ones(1))
    assert torch.isfinite(nll).all()
    assert torch.isfinite(gradient).all()
    assert gradient[0, 2] == 0
