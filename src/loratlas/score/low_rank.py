"""What is left of trained adapters at a lower rank?

ΔW = s·B·A of shape (d_out, d_in) is never formed: with B = Q_b·R_b and Aᵀ = Q_a·R_a its singular
values are those of the small matrix s·R_b·R_aᵀ. Cutting them off gives the best approximation of
each rank in the Frobenius norm (C. Eckart and G. Young, Psychometrika 1, 1936).

Experts, stacked in one parameter, are truncated each by itself.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora.layer import ParamWrapper

from loratlas.errors import PlacementError
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

    @property
    def rank(self) -> int:
        """The highest rank that ΔW can have."""
        return min(self.a.shape[1], self.a.shape[2], self.b.shape[1])

    @property
    def delta(self) -> torch.Tensor:
        """ΔW in float64, shape (experts, d_out, d_in); for tests and small sites."""
        return self.scale * self.b.double() @ self.a.double()


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
    core = _core(factors)[2]
    values: NDArray[np.float64] = torch.linalg.svdvals(core).cpu().numpy()
    return values


def squared_curve(factors: Factors) -> NDArray[np.float64]:
    """Return what each further rank keeps of ‖ΔW‖²_F, shape (rank,), descending.

    One unit of rank is one for each expert, so that experts are summed.
    """
    curve: NDArray[np.float64] = np.square(singular_values(factors)).sum(axis=0)
    return curve


def truncated(factors: Factors, rank: int, scale: float) -> Factors:
    """Return the best approximation of ΔW of a lower rank, in balanced factors.

    Each singular value goes by its square root into A and into B, over that of the scale.

    Args:
        factors: the trained adapter.
        rank: at most the one it was trained with.
        scale: what the new B·A will be multiplied by, which may depend on its rank.
    """
    q_b, q_a, core = _core(factors)
    u, values, vh = torch.linalg.svd(core, full_matrices=False)
    root = (values[:, :rank] / scale).sqrt()
    a = root[:, :, None] * (vh[:, :rank] @ q_a.mT)
    b = (q_b @ u[:, :, :rank]) * root[:, None, :]
    return Factors(a=a.to(factors.a.dtype), b=b.to(factors.b.dtype), scale=scale)


def truncate(trained: Mapping[str, Factors], placement: Placement) -> dict[str, Factors]:
    """Cut trained adapters down to a placement; sites that it leaves out are dropped.

    Args:
        trained: adapters by the path of their site.
        placement: the ranks that are left, and by them the scales.

    Raises:
        PlacementError: the placement has a site that was not trained, or more rank than was.
    """
    found = {}
    for adapter in placement.adapters:
        path = adapter.site.path
        if path not in trained:
            raise PlacementError(f"{path}: was not trained, so that there is nothing to truncate")
        if adapter.rank > trained[path].rank:
            raise PlacementError(
                f"{path}: rank {adapter.rank} is above the {trained[path].rank} that was trained"
            )
        found[path] = truncated(trained[path], adapter.rank, placement.scale(adapter))
    return found


def peft_state(factors: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """Return adapters of plain maps by PEFT's names, as `train.adapters.write_adapters` takes them.

    Raises:
        PlacementError: a site holds experts, whose names depend on how PEFT nests its wrappers.
    """
    state = {}
    for path, each in factors.items():
        if len(each.a) > 1:
            raise PlacementError(f"{path}: adapters of experts cannot be written by themselves")
        state[f"base_model.model.{path}.lora_A.weight"] = each.a[0]
        state[f"base_model.model.{path}.lora_B.weight"] = each.b[0]
    return state


def _core(factors: Factors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return Q_b, Q_a and s·R_b·R_aᵀ, in float64."""
    q_b, r_b = torch.linalg.qr(factors.b.double())
    q_a, r_a = torch.linalg.qr(factors.a.double().mT)
    return q_b, q_a, factors.scale * r_b @ r_a.mT
