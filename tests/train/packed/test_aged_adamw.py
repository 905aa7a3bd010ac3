"""AdamW with an age for each entry, held against torch's own."""

import torch

from loratlas.train.packed.aged import AgedAdamW

OPTIONS = {"lr": 3e-2, "weight_decay": 0.1}
# The same formula with its factors in another order: a few roundings a step.
CLOSE = {"rtol": 2e-6, "atol": 1e-7}


def _parameter(size=6):
    return torch.nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(1)))


def _gradients(count, size=6):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(2))


def _stepped(optimiser, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimiser.step()


def test_entries_of_one_age_are_those_of_adamw():
    ours, theirs = _parameter(), _parameter()
    _stepped(AgedAdamW(ours, **OPTIONS), ours, _gradients(20))
    _stepped(torch.optim.AdamW([theirs], **OPTIONS), theirs, _gradients(20))
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_an_entry_that_begins_later_is_that_of_an_adamw_that_begins_there():
    ours, gradients = _parameter(), _gradients(20)
    optimiser = AgedAdamW(ours, **OPTIONS)
    _stepped(optimiser, ours, gradients[:15])
    young = slice(4, 6)
    for follower in optimiser.followers:
        follower[young] = 0
    theirs = torch.nn.Parameter(ours.detach().clone())
    _stepped(optimiser, ours, gradients[15:])
    _stepped(torch.optim.AdamW([theirs], **OPTIONS), theirs, gradients[15:])
    torch.testing.assert_close(ours[young], theirs[young], **CLOSE)
    assert not torch.allclose(ours[:4], theirs[:4], rtol=1e-3)


def test_entries_that_are_zero_and_get_no_gradient_stay_zero():
    ours, gradients = torch.nn.Parameter(torch.zeros(6)), _gradients(5)
    gradients[:, 3:] = 0
    _stepped(AgedAdamW(ours, **OPTIONS), ours, gradients)
    assert not ours[3:].any()
    assert ours[:3].all()


def test_the_rate_follows_a_schedule():
    ours, theirs = _parameter(), _parameter()
    for make, parameter in (
        (AgedAdamW, ours),
        (lambda p, **o: torch.optim.AdamW([p], **o), theirs),
    ):
        optimiser = make(parameter, **OPTIONS)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, 10)
        for gradient in _gradients(10):
            parameter.grad = gradient.clone()
            optimiser.step()
            schedule.step()
    torch.testing.assert_close(ours, theirs, **CLOSE)
