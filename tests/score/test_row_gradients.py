"""Norms and products of row gradients against the gradients themselves, from random factors."""

import pytest
import torch

from loratlas.score.row_gradients import WHOLE, Factored, Formed, formed_norms, ghost_norms

ROWS, TOKENS, D_IN, D_OUT = 3, 5, 7, 6
PARTS = (torch.tensor([0, 2, 4]), torch.tensor([1, 3]), torch.tensor([5]))


@pytest.fixture
def factored():
    generator = torch.Generator().manual_seed(0)
    return Factored(
        inputs=torch.randn(ROWS, TOKENS, D_IN, generator=generator),
        deltas=torch.randn(ROWS, TOKENS, D_OUT, generator=generator),
    )


@pytest.fixture
def exact(factored):
    """G_n in float64, shape (rows, d_out, d_in)."""
    return torch.einsum("nto,nti->noi", factored.deltas.double(), factored.inputs.double())


@pytest.mark.parametrize("norms", [ghost_norms, formed_norms])
@pytest.mark.parametrize("parts", [WHOLE, PARTS])
def test_both_ways_give_the_norm_of_each_row_and_part(factored, exact, norms, parts):
    wanted = torch.stack([exact[:, part].square().sum((1, 2)) for part in parts], dim=1)
    found = norms(factored.inputs, factored.deltas, parts)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("norms", [ghost_norms, formed_norms])
def test_factors_in_bf16_are_summed_in_fp32(factored, norms):
    inputs, deltas = factored.inputs.bfloat16(), factored.deltas.bfloat16()
    wanted = norms(inputs.double().float(), deltas.double().float(), WHOLE)
    torch.testing.assert_close(norms(inputs, deltas, WHOLE), wanted, rtol=1e-5, atol=0)


def test_a_row_that_pushes_nowhere_has_the_energy_zero(factored):
    nothing = Factored(inputs=factored.inputs, deltas=torch.zeros_like(factored.deltas))
    assert not nothing.energies(WHOLE).any()
    assert not ghost_norms(nothing.inputs, nothing.deltas, PARTS).any()


def test_the_cheaper_way_is_taken(monkeypatch):
    taken = []
    for way in ("ghost_norms", "formed_norms"):
        monkeypatch.setattr(
            f"loratlas.score.row_gradients.{way}", lambda *_, way=way: taken.append(way)
        )
    # 64·64 / (64 + 64) = 32 tokens is where both cost the same.
    for num_tokens in (31, 32):
        Factored(
            inputs=torch.zeros(1, num_tokens, 64), deltas=torch.zeros(1, num_tokens, 64)
        ).energies(WHOLE)
    assert taken == ["ghost_norms", "formed_norms"]


def test_products_on_either_side(factored, exact):
    right, left = torch.randn(D_IN, 2), torch.randn(D_OUT, 2)
    torch.testing.assert_close(factored.right(right), (exact @ right.double())[:, None].float())
    torch.testing.assert_close(factored.left(left), (left.double().T @ exact)[:, None].float())
    turned = factored.transposed()
    torch.testing.assert_close(turned.right(left), factored.left(left).mT)
    torch.testing.assert_close(turned.left(right), factored.right(right).mT)
    torch.testing.assert_close(factored.joined().right(right)[0], factored.right(right).sum(0))


def test_formed_gradients_answer_as_factored_ones(factored, exact):
    formed = Formed(weight=exact[:1].float())
    first = Factored(inputs=factored.inputs[:1], deltas=factored.deltas[:1])
    right, left = torch.randn(D_IN, 2), torch.randn(D_OUT, 2)
    close = torch.testing.assert_close
    close(formed.energies(PARTS), first.energies(PARTS))
    close(formed.right(right), first.right(right))
    close(formed.left(left), first.left(left))
    close(formed.transposed().right(left), first.transposed().right(left))
    close(formed.joined().left(left), first.joined().left(left))


def test_each_of_several_maps_has_its_own_matrix(exact):
    formed = Formed(weight=exact.float())
    matrices = torch.randn(ROWS, D_IN, 2)
    wanted = torch.stack([g @ m for g, m in zip(exact.float(), matrices, strict=True)])
    torch.testing.assert_close(formed.right(matrices), wanted[None])
    torch.testing.assert_close(formed.energies(WHOLE)[0, 0], exact.float().square().sum())
