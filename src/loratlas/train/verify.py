"""Whether what is wrapped in a model is what its placement asked for, exactly."""

import math
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper

from loratlas.errors import VerificationError
from loratlas.placement.placement import Placement

ADAPTER_NAME = "default"
# Scales are ratios of small numbers in float64; anything above rounding is a real difference.
_SCALE_TOLERANCE = 1e-9
_MOST_SHOWN = 5


def wrapped_layers(peft_model: Any) -> dict[str, LoraLayer]:
    """Return the LoRA layers of a PEFT model by the path that they had in the base."""
    return {
        _site_path(name, module): module
        for name, module in peft_model.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER_NAME in module.r
    }


def _site_path(name: str, layer: LoraLayer) -> str:
    """Return the path that a wrapped site had in the base.

    A parameter is wrapped through the module that holds it, several of one module inside one
    another; the wrapper of a linear map's own weight is named by the map.
    """
    path = name.removeprefix("base_model.model.").replace(".base_layer", "")
    if isinstance(layer, ParamWrapper) and not isinstance(layer.get_base_layer(), torch.nn.Linear):
        return f"{path}.{layer.parameter_name}"
    return path


def verify(peft_model: Any, placement: Placement) -> None:
    """Compare wrapped sites, ranks, scales and the parameter count with the placement.

    Raises:
        VerificationError: anything differs; the message names the first differences.
    """
    differences = _site_differences(wrapped_layers(peft_model), placement)
    trainable = sum(p.numel() for p in peft_model.parameters() if p.requires_grad)
    if trainable != placement.trainable_parameters:
        differences.append(
            f"{trainable:,} trainable parameters instead of {placement.trainable_parameters:,}"
        )
    if differences:
        shown = "; ".join(differences[:_MOST_SHOWN])
        more = len(differences) - _MOST_SHOWN
        tail = f"; and {more} more" if more > 0 else ""
        raise VerificationError(f"the adapters are not the placement's: {shown}{tail}")


def _site_differences(layers: dict[str, LoraLayer], placement: Placement) -> list[str]:
    wanted = {adapter.site.path: adapter for adapter in placement.adapters}
    differences = [f"{path} is not adapted" for path in wanted if path not in layers]
    differences += [f"{path} is adapted and should not be" for path in layers if path not in wanted]
    for path, adapter in wanted.items():
        layer = layers.get(path)
        if layer is None:
            continue
        rank, scale = layer.r[ADAPTER_NAME], layer.scaling[ADAPTER_NAME]
        if rank != adapter.rank:
            differences.append(f"{path} has rank {rank} instead of {adapter.rank}")
        if not math.isclose(scale, placement.scale(adapter), rel_tol=_SCALE_TOLERANCE):
            differences.append(f"{path} has scale {scale} instead of {placement.scale(adapter)}")
    return differences
