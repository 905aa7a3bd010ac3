"""Truncated adapters beside torch's own SVD, and beside PEFT."""

import pytest
import torch
from peft import PeftModel

from loratlas.errors import PlacementError
from loratlas.placement.placement import place
from loratlas.score.low_rank import (
    Factors,
    factors_of,
    peft_state,
    singular_values,
    squared_curve,
    truncate,
    truncated,
)
from loratlas.train.adapters import new_adapters, saved_adapters, write_adapters


def factors(rank=5, d_in=9, d_out=7, experts=1, scale=2.0, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return Factors(
        a=torch.randn(experts, rank, d_in, generator=chance),
        b=torch.randn(experts, d_out, rank, generator=chance),
        scale=scale,
    )


@pytest.mark.parametrize("shape", [{}, {"experts": 3}, {"rank": 8, "d_in": 4}])
def test_singular_values_are_those_of_the_product(shape):
    given = factors(**shape)
    whole = torch.linalg.svdvals(given.delta).numpy()
    found = singular_values(given)
    # Products are taken in float64, of factors in float32.
    assert found == pytest.approx(whole[:, : found.shape[1]], rel=1e-9, abs=1e-9)
    assert squared_curve(given).sum() == pytest.approx(float(given.delta.square().sum()), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("experts", [1, 3])
def test_truncation_is_the_best_approximation_of_its_rank(rank, experts):
    given = factors(experts=experts)
    u, s, vh = torch.linalg.svd(given.delta, full_matrices=False)
    best = (u[:, :, :rank] * s[:, None, :rank]) @ vh[:, :rank]
    found = truncated(given, rank, scale=0.5)
    # A and B are rounded to float32 once.
    assert torch.allclose(found.delta, best, atol=1e-5)
    assert found.a.shape == (experts, rank, 9)
    assert found.b.shape == (experts, 7, rank)


def test_nothing_is_lost_at_full_rank_whatever_the_scale():
    given = factors()
    for scale in (2.0, 0.25):
        assert torch.allclose(truncated(given, 5, scale).delta, given.delta, atol=1e-5)


def test_factors_are_balanced():
    found = truncated(factors(), 3, scale=0.5)
    # AAᵀ and BᵀB are the same diagonal matrix.
    left, right = found.b[0].T @ found.b[0], found.a[0] @ found.a[0].T
    assert torch.allclose(left, right, atol=1e-4)
    assert torch.allclose(left, torch.diag(left.diagonal()), atol=1e-4)


def test_a_placement_says_what_is_left(anatomy):
    site = place(anatomy, "attention.o", rank=4, alpha=8)
    trained = {
        a.site.path: factors(rank=4, d_in=a.site.d_in, d_out=a.site.d_out) for a in site.adapters
    }
    lower = place(anatomy, "attention.o @ first(1)", rank=2, alpha=8, scaling="alpha/r")
    found = truncate(trained, lower)
    (path,) = found
    assert (found[path].rank, found[path].scale) == (2, 4)
    with pytest.raises(PlacementError, match=r"mlp\.c_fc: was not trained"):
        truncate(trained, place(anatomy, "feed_forward", rank=2))
    higher = place(anatomy, "attention.o", rank=5)
    with pytest.raises(PlacementError, match="rank 5 is above the 4 that was trained"):
        truncate(trained, higher)


def test_truncated_adapters_load_in_peft(base, anatomy, prepared, tmp_path):
    wide = place(anatomy, "all", rank=6, alpha=12)
    with new_adapters(base, wide, seed=0, dropout=0.0) as model:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
        trained = factors_of(model, wide)
        deltas = {
            name.removeprefix("base_model.model."): layer.get_delta_weight("default")
            for name, layer in model.named_modules()
            if hasattr(layer, "get_delta_weight") and "default" in getattr(layer, "r", {})
        }
        before = _logits(base, model, prepared)
    for path, each in trained.items():
        # Conv1D holds its weight, and so PEFT's ΔW, transposed.
        assert torch.allclose(each.delta[0].float().T, deltas[path], atol=1e-6)
    narrow = place(anatomy, "attention:6 + feed_forward:1", rank=6, alpha=12)
    for placement, equal in ((wide, True), (narrow, False)):
        state = peft_state(truncate(trained, placement))
        folder = tmp_path / str(equal)
        write_adapters(state, placement, folder, dropout=0, base_name="x", revision=None)
        with saved_adapters(base, folder, placement) as model:
            assert isinstance(model, PeftModel)
            after = _logits(base, model, prepared)
        assert torch.allclose(before, after, atol=1e-4) == equal


def test_experts_are_not_written_by_themselves():
    with pytest.raises(PlacementError, match="adapters of experts cannot be written"):
        peft_state({"mlp.experts.down_proj": factors(experts=2)})


def _logits(base, model, prepared):
    inputs = base.collator(prepared.test.rows[:3])
    del inputs["labels"]
    with torch.no_grad():
        return model(**inputs).logits
