"""All values of a trial lie in one vector, and start as PEFT's adapters do."""

import pytest
import torch
from packed_cases import CPU, Trial

from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters
from loratlas.train.packed.slots import Slot
from loratlas.train.randomness import mask_seed
from loratlas.train.verify import wrapped_layers


def slot_of(case, **trial):
    (slot,) = case.slots([Trial(**{"rule": "attention:4 + feed_forward:2", **trial})])
    return slot


@pytest.mark.parametrize("scaling", ["constant", "alpha/r", "rslora"])
def test_it_starts_as_pefts_adapters_with_their_scale(gpt2, scaling):
    placement = place(
        gpt2.anatomy, "attention:4 + feed_forward:2", rank=8, alpha=12, scaling=scaling
    )
    slot = Slot.new(placement, seed=3, dropout=0.0, device=CPU)
    with new_adapters(gpt2.base, placement, seed=3, dropout=0.0) as model:
        layers = wrapped_layers(model)
        assert set(layers) == set(slot.sites)
        for path, layer in layers.items():
            site = slot.sites[path]
            assert torch.equal(site.a, layer.lora_A["default"].weight)
            assert torch.equal(site.b, layer.lora_B["default"].weight)
            assert site.scale == pytest.approx(layer.scaling["default"], rel=1e-12)


def test_sites_are_views_that_cover_the_vector_once(gpt2):
    slot = slot_of(gpt2)
    assert slot.values.numel() == slot.placement.trainable_parameters
    assert sum(site.a.numel() + site.b.numel() for site in slot.sites.values()) == len(slot.values)
    for site in slot.sites.values():
        site.a.fill_(1)
        site.b.fill_(1)
        site.grad_a.add_(2)
        site.grad_b.add_(2)
    assert torch.equal(slot.values, torch.ones_like(slot.values))
    assert torch.equal(slot.gradient, torch.full_like(slot.values, 2))


def test_an_optimiser_step_is_seen_at_the_sites(gpt2):
    slot = slot_of(gpt2)
    slot.gradient.fill_(1)
    before = [site.a.clone() for site in slot.sites.values()]
    torch.optim.SGD([slot.values], lr=0.5).step()
    for old, site in zip(before, slot.sites.values(), strict=True):
        torch.testing.assert_close(site.a, old - 0.5)
        torch.testing.assert_close(site.b, torch.full_like(site.b, -0.5))


def test_masks_are_seeded_by_seed_step_site_and_row():
    seeds = {
        mask_seed(seed, step, path, row)
        for seed in range(3) for step in range(3) for path in "ab" for row in range(3)
    }  # fmt: skip
    assert len(seeds) == 54
    assert mask_seed(1, 2, "a", 0) == mask_seed(1, 2, "a", 0)
    assert all(0 <= seed < 2**63 for seed in seeds)
