"""The graph of small modules whose names say nothing, or the wrong thing."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from loratlas.anatomy.blocks import block_places
from loratlas.anatomy.dataflow import find_roles
from loratlas.anatomy.trace import Tracer

WIDTH = 8


class Misnamed(nn.Module):
    """A block whose maps carry each other's names."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.down_proj = nn.Linear(WIDTH, WIDTH)  # query
        self.o_proj = nn.Linear(WIDTH, WIDTH)  # key
        self.gate_proj = nn.Linear(WIDTH, WIDTH)  # value
        self.k_proj = nn.Linear(WIDTH, WIDTH)  # output
        self.v_proj = nn.Linear(WIDTH, 2 * WIDTH)  # up
        self.up_proj = nn.Linear(WIDTH, 2 * WIDTH)  # gate
        self.q_proj = nn.Linear(2 * WIDTH, WIDTH)  # down

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.down_proj(x), self.o_proj(x), self.gate_proj(x)
        x = x + self.k_proj(ATTENTION[self.attention](query, key, value))
        return x + self.q_proj(self.v_proj(x) * functional.silu(self.up_proj(x)))


def _eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / 3).softmax(-1) @ value


def _einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.softmax(torch.einsum("bid,bjd->bij", query, key), dim=-1)
    return torch.einsum("bij,bjd->bid", weights, value)


def _reversed_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.softmax(torch.einsum("bjd,bid->bij", key, query), dim=-1)
    return torch.einsum("bij,bjd->bid", weights, value)


ATTENTION = {
    "eager": _eager,
    "sdpa": functional.scaled_dot_product_attention,
    "einsum": _einsum,
    "reversed einsum": _reversed_einsum,
}


class Model(nn.Module):
    def __init__(self, attention: str) -> None:
        super().__init__()
        self.table = nn.Embedding(11, WIDTH)
        self.anything = nn.ModuleList([Misnamed(attention) for _ in range(3)])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for block in self.anything:
            x = block(x)
        return x


@pytest.mark.parametrize("attention", ATTENTION)
def test_names_do_not_matter(attention):
    with torch.device("meta"):
        model = Model(attention).eval()
    tracer = Tracer(model)
    with torch.no_grad(), tracer:
        model(tracer.stream("ids", torch.ones(1, 5, dtype=torch.long)))
    found = find_roles(tracer.maps, tracer.attentions, block_places(model), causal=True).found

    expected = {
        "down_proj": "attention.q",
        "o_proj": "attention.k",
        "gate_proj": "attention.v",
        "k_proj": "attention.o",
        "v_proj": "feed_forward.up",
        "up_proj": "feed_forward.gate",
        "q_proj": "feed_forward.down",
    }
    assert {path: str(role) for path, role in found.items()} == {
        f"anything.{layer}.{name}": role for layer in range(3) for name, role in expected.items()
    }


def test_hooks_are_removed():
    with torch.device("meta"):
        model = Model("eager")
    with Tracer(model) as tracer:
        model(tracer.stream("ids", torch.ones(1, 5, dtype=torch.long)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Looking(nn.Module):
    """A module that looks at values: true ones of the mask, missing ones of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(WIDTH, WIDTH)
        self.saw: list[object] = []

    def forward(self, mask: Tensor) -> Tensor:
        x = self.map(torch.zeros(2, WIDTH, device=self.map.weight.device))
        self.saw = [bool(mask.all()), mask.sum().item(), torch.arange(3, device=x.device).tolist()]
        kept = torch.zeros(2, WIDTH)
        kept.index_add_(0, (x[:, 0] > 0).nonzero()[:, 0], x[x[:, 0] > 0])
        self.saw.append(kept.shape)
        self.saw.append(kept.device.type)
        return kept


def test_values_that_exist_are_true_and_others_have_the_right_shape():
    with torch.device("meta"):
        model = Looking()
    with torch.no_grad(), Tracer(model):
        model(torch.ones(4, dtype=torch.bool))
    assert model.saw == [True, 4, [0, 1, 2], (2, WIDTH), "meta"]
