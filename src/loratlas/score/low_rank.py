"""How much of a trained adapter lies in each of its ranks?

ΔW = s·B·A of shape (d_out, d_in) is never formed: with B = Q_b·R_b and Aᵀ = Q_a·R_a its singular
values are those of the small matrix s·R_b·R_aᵀ. The squares of the first r of them are what the
best approximation of rank r keeps of ‖ΔW‖²_F (C. Eckart and G. Young, Psychometrika 1, 1936).

Experts, stacked in one parameter, are decomposed each by itself.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora.layer import ParamWrapper

from loratlas.placement.placement import Placement
from loratlas.train.verify import ADAPTER_NAME, wrapped_layers


class Factors(NamedTuple):
    """A trained adapter: ΔW = scale·B·A, for each expert by itself.

    Attributes:
        a: shape (experts, rank, d_in); one expert where the site holds one map.
        b: shape (experts, d_out, rank).
        scale: what B·A is multiplied by.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float


def factors_of(peft_model: Any, placement: Placement) -> dict[str, Factors]:
    """Return the adapters of a PEFT model by path, copied.

    An embedding's A reads ids, so that its d_in is the number of rows, as in the anatomy.
    """
    layers = wrapped_layers(peft_model)
    found = {}
    for adapter in placement.adapters:
        layer: Any = layers[adapter.site.path]
        if ADAPTER_NAME in layer.lora_embedding_A:
            a, b = layer.lora_embedding_A[ADAPTER_NAME], layer.lora_embedding_B[ADAPTER_NAME]
        else:
            a, b = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
        # PEFT stacks A expert by expert, and B rank by rank (`ParamWrapper.get_delta_weight`).
        count = layer.num_experts if isinstance(layer, ParamWrapper) else 1
        found[adapter.site.path] = Factors(
            a=a.detach().clone().reshape(count, -1, a.shape[-1]),
            b=b.detach().clone().reshape(b.shape[0], -1, count).permute(2, 0, 1),
            scale=placement.scale(adapter),
        )
    return found


def singular_values(factors: Factors) -> NDArray[np.float64]:
    """Return the singular values of ΔW, shape (experts, rank), descending by expert."""
    values: NDArray[np.float64] = torch.linalg.svdvals(_core(factors)).cpu().numpy()
    return values


def squared_curve(factors: Factors) -> NDArray[np.float64]:
    """Return what each further rank keeps of ‖ΔW‖²_F, shape (rank,), descending.

    One unit of rank is one for each expert, so that experts are summed.
    """
    curve: NDArray[np.float64] = np.square(singular_values(factors)).sum(axis=0)
    return curve


def _core(factors: Factors) -> torch.Tensor:
    """Return s·R_b·R_aᵀ, in float64."""
    r_b = torch.linalg.qr(factors.b.double(), mode="r").R
    r_a = torch.linalg.qr(factors.a.double().mT, mode="r").R
    core: torch.Tensor = factors.scale * r_b @ r_a.mT
    return core
