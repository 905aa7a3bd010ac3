"""What does one adapter look like at another rank, its scale folded into B? B A stays the same.

PEFT keeps the adapters of a parameter with E experts stacked: A has E blocks of r rows, one after
another; B has r groups of E columns, expert by expert within a group
(`peft.tuners.lora.layer.ParamWrapper.get_delta_weight`).
"""

from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer

from loratlas.train.verify import ADAPTER_NAME


class Factors(NamedTuple):
    """A of shape (E * r, inputs) and B of shape (outputs, r * E) of one site, E = 1 but of experts.

    Of an embedding, inputs are the rows of the vocabulary.
    """

    a: torch.Tensor
    b: torch.Tensor


def factors_of(layer: LoraLayer) -> Factors:
    """Return the tensors of a wrapped site themselves, not copies."""
    held: Any = layer
    if ADAPTER_NAME in held.lora_embedding_A:
        return Factors(held.lora_embedding_A[ADAPTER_NAME], held.lora_embedding_B[ADAPTER_NAME])
    return Factors(held.lora_A[ADAPTER_NAME].weight, held.lora_B[ADAPTER_NAME].weight)


def folded(factors: Factors, *, scale: float, old_rank: int, rank: int) -> Factors:
    """Return factors at a higher rank whose B A is scale * B A of the old ones.

    Args:
        factors: at the old rank.
        scale: what the old B A is multiplied with in the forward pass.
        old_rank: their rank.
        rank: at least the old rank; what is new is zero.
    """
    num_experts = factors.a.shape[0] // old_rank
    a = factors.a.detach().reshape(num_experts, old_rank, -1)
    b = factors.b.detach().reshape(-1, old_rank, num_experts) * scale
    new_a = a.new_zeros(num_experts, rank, a.shape[2])
    new_b = b.new_zeros(b.shape[0], rank, num_experts)
    new_a[:, :old_rank] = a
    new_b[:, :old_rank] = b
    return Factors(new_a.flatten(0, 1), new_b.flatten(1, 2))
