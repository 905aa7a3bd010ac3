"""What does each of the stacked experts of a layer read, and make of it?

Transformers' expert modules have one form, whichever way they compute: they are given hidden
states and, for each token, the indices of its experts; weights are stacked, and gating is a
function of its own (`use_experts_implementation` in transformers/integrations/moe.py, which marks
how weights are stored). What an expert's second map reads appears nowhere, so it is computed here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from loratlas.anatomy.sites import Site
from loratlas.score.capture import Tokens, by_row
from loratlas.score.inputs import Call, why_absent, why_no_input
from loratlas.score.sample import holder_of
from loratlas.score.scorer import Subject

_FIRST = ("gate_up_proj", "up_proj")
_SECOND = "down_proj"


class ExpertRead(NamedTuple):
    """What one expert's map read of the tokens of a call.

    Attributes:
        expert: its number.
        tokens: their places among those of the call, shape (pairs,).
        inputs: shape (pairs, d_in).
        outputs: without bias, shape (pairs, d_out).
    """

    expert: int
    tokens: torch.Tensor
    inputs: torch.Tensor
    outputs: torch.Tensor


def why_no_expert_input(site: Site, subject: Subject) -> str | None:
    """Return why what an expert parameter reads cannot be told, or None where it can."""
    if (said := why_absent(site, subject)) is not None:
        return said
    module, name = holder_of(subject.base.model, site)
    marked = all(hasattr(module, mark) for mark in ("_apply_gate", "has_gate", "is_transposed"))
    known = site.num_experts is not None and marked and name in (*_FIRST, _SECOND)
    return None if known else why_no_input(site, subject)


def expert_weights(site: Site, module: Any) -> torch.Tensor:
    """Return the maps of a parameter, shape (experts, d_out, d_in)."""
    return _stacked(module, site.path.rpartition(".")[2])


def expert_reads(call: Call, site: Site, module: Any) -> Iterator[ExpertRead]:
    """Yield what each expert's map read in one call of its module; idle experts are left out.

    Args:
        call: of the module that holds the parameter; padding is left out.
        site: the parameter.
        module: that module.
    """
    name = site.path.rpartition(".")[2]
    inputs = call.inputs
    chosen = _chosen(call)
    for expert in range(site.num_experts or 0):
        tokens = (chosen == expert).any(1).nonzero()[:, 0]
        if not len(tokens):
            continue
        read = inputs[tokens]
        if name == _SECOND:
            read = _hidden(module, expert, read)
        made = read @ _stacked(module, name)[expert].mT
        yield ExpertRead(expert, tokens, read, made)


def _chosen(call: Call) -> torch.Tensor:
    """Return the experts of each token, shape (tokens, experts of one token)."""
    tensors = (each for each in call.beside if isinstance(each, torch.Tensor))
    indices = next(each for each in tensors if not each.is_floating_point())
    by_place = by_row(indices, Tokens(call.present, padded=False))
    assert by_place is not None, "tokens stand as their hidden states do"
    return by_place[call.present]


def _hidden(module: Any, expert: int, read: torch.Tensor) -> torch.Tensor:
    """Return what an expert's second map reads."""
    first = _FIRST[0] if module.has_gate else _FIRST[1]
    made = read @ _stacked(module, first)[expert].mT
    bias = getattr(module, f"{first}_bias", None)
    if bias is not None:
        made = made + bias[expert]
    hidden: torch.Tensor = module._apply_gate(made) if module.has_gate else module.act_fn(made)
    return hidden


def _stacked(module: Any, name: str) -> torch.Tensor:
    weight: torch.Tensor = getattr(module, name).detach()
    return weight.mT if module.is_transposed else weight
