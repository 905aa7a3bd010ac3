"""Spectra of adapters beside torch's own SVD of ΔW, and beside PEFT."""

import pytest
import torch

from loratlas.placement.placement import place
from loratlas.score.low_rank import Factors, factors_of, singular_values, squared_curve
from loratlas.train.adapters import new_adapters


def factors(rank=5, d_in=9, d_out=7, experts=1, scale=2.0, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return Factors(
        a=torch.randn(experts, rank, d_in, generator=chance),
        b=torch.randn(experts, d_out, rank, generator=chance),
        scale=scale,
    )


def delta(given):
    """ΔW in float64, shape (experts, d_out, d_in)."""
    return given.scale * given.b.double() @ given.a.double()


@pytest.mark.parametrize("shape", [{}, {"experts": 3}, {"rank": 8, "d_in": 4}])
def test_singular_values_are_those_of_the_product(shape):
    given = factors(**shape)
    whole = torch.linalg.svdvals(delta(given)).numpy()
    found = singular_values(given)
    # Products are taken in float64, of factors in float32.
    assert found == pytest.approx(whole[:, : found.shape[1]], rel=1e-9, abs=1e-9)
    curve = squared_curve(given)
    assert curve.sum() == pytest.approx(float(delta(given).square().sum()), rel=1e-9)
    assert curve.tolist() == sorted(curve, reverse=True)


def test_factors_are_those_of_peft(base, anatomy):
    placement = place(anatomy, "all", rank=6, alpha=12)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
        found = factors_of(model, placement)
        deltas = {
            name.removeprefix("base_model.model."): layer.get_delta_weight("default")
            for name, layer in model.named_modules()
            if hasattr(layer, "get_delta_weight") and "default" in getattr(layer, "r", {})
        }
    assert found.keys() == deltas.keys()
    for path, each in found.items():
        # Conv1D holds its weight, and so PEFT's ΔW, transposed.
        assert torch.allclose(delta(each)[0].float().T, deltas[path], atol=1e-6)
