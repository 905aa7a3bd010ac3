"""Whether what is wrapped in a model is what its placement asked for, exactly."""

import math
from collections.abc import Collection
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils import ModulesToSaveWrapper
from transformers.pytorch_utils import Conv1D

from loratlas.errors import VerificationError
from loratlas.placement.placement import Placement

ADAPTER_NAME = "default"
# Scales are ratios of small numbers in float64; anything above rounding is a real difference.
_SCALE_TOLERANCE = 1e-9
_MOST_SHOWN = 5
# Modules whose weight is the site; the parameters of any other module are sites by themselves.
_MAPS = (torch.nn.Linear, torch.nn.Embedding, Conv1D)


def wrapped_layers(peft_model: Any, *, adapter_name: str = ADAPTER_NAME) -> dict[str, LoraLayer]:
    """Return the LoRA layers of a PEFT model by the path that they had in the base."""
    return {
        _site_path(name, module): module
        for name, module in peft_model.named_modules()
        if isinstance(module, LoraLayer) and adapter_name in module.r
    }


def _site_path(name: str, layer: LoraLayer) -> str:
    """Return the path that a wrapped site had in the base.

    A parameter is wrapped through the module that holds it, several of one module inside one
    another; the wrapper of a map's own weight is named by the map. A compiled model, and a PEFT
    model inside another, put their own names before the path.
    """
    path = name.replace("_orig_mod.", "").replace("base_model.model.", "")
    path = path.replace(".base_layer", "")
    if not isinstance(layer, ParamWrapper):
        return path
    owns = layer.parameter_name == "weight" and isinstance(layer.get_base_layer(), _MAPS)
    return path if owns else f"{path}.{layer.parameter_name}"


def verify(
    peft_model: Any,
    placement: Placement,
    *,
    adapter_name: str | None = None,
    whole: Collection[str] = (),
) -> None:
    """Compare wrapped sites, ranks, scales and the parameter count with the placement.

    Args:
        peft_model: what ``get_peft_model`` returned, or a trainer's ``model``.
        placement: what was asked for.
        adapter_name: the adapter to look at; None is the one that is active.
        whole: paths of modules that are meant to be trained whole beside the adapters, such as
            the new head of a classifier (PEFT's `modules_to_save`).

    Raises:
        VerificationError: anything differs; the message names the first differences.
    """
    name = _active(peft_model) if adapter_name is None else adapter_name
    layers = wrapped_layers(peft_model, adapter_name=name)
    differences = _site_differences(layers, placement, name)
    differences += _state_differences(layers, name)
    differences += _other_adapters(peft_model, name)
    differences += _count_differences(peft_model, placement, whole)
    if differences:
        shown = "; ".join(differences[:_MOST_SHOWN])
        more = len(differences) - _MOST_SHOWN
        tail = f"; and {more} more" if more > 0 else ""
        raise VerificationError(f"the adapters are not the placement's: {shown}{tail}")


def _active(peft_model: Any) -> str:
    """Return the name of the active adapter."""
    names = sorted(
        {
            name
            for module in peft_model.modules()
            if isinstance(module, LoraLayer)
            for name in module.active_adapters
        }
    )
    if len(names) > 1:
        raise VerificationError(
            f"several adapters are active: {', '.join(names)}; say which one with adapter_name"
        )
    return names[0] if names else ADAPTER_NAME


def _site_differences(
    layers: dict[str, LoraLayer], placement: Placement, adapter_name: str
) -> list[str]:
    wanted = {adapter.site.path: adapter for adapter in placement.adapters}
    differences = [f"{path} is not adapted" for path in wanted if path not in layers]
    differences += [f"{path} is adapted and should not be" for path in layers if path not in wanted]
    for path, adapter in wanted.items():
        layer = layers.get(path)
        if layer is None:
            continue
        rank, scale = layer.r[adapter_name], layer.scaling[adapter_name]
        if rank != adapter.rank:
            differences.append(f"{path} has rank {rank} instead of {adapter.rank}")
        if not math.isclose(scale, placement.scale(adapter), rel_tol=_SCALE_TOLERANCE):
            differences.append(f"{path} has scale {scale} instead of {placement.scale(adapter)}")
    return differences


def _state_differences(layers: dict[str, LoraLayer], adapter_name: str) -> list[str]:
    """Return which adapters are there and do not take part in the forward pass."""
    found = []
    for path, layer in layers.items():
        if layer.merged:
            found.append(f"{path} is merged into its base")
        elif layer.disable_adapters or adapter_name not in layer.active_adapters:
            found.append(f"{path} is adapted, and the adapter {adapter_name} is switched off")
    return found


def _other_adapters(peft_model: Any, adapter_name: str) -> list[str]:
    """Return which other adapters take part, as after a second `get_peft_model`."""
    found: dict[str, int] = {}
    for module in peft_model.modules():
        if isinstance(module, LoraLayer) and not module.disable_adapters:
            for name in module.active_adapters:
                if name != adapter_name and name in module.r:
                    found[name] = found.get(name, 0) + 1
    return [f"the adapter {name} is active, too, at {n} sites" for name, n in found.items()]


def _count_differences(peft_model: Any, placement: Placement, whole: Collection[str]) -> list[str]:
    saved = _saved_whole(peft_model)
    expected = {id(p) for path in saved.keys() & set(whole) for p in saved[path].parameters()}
    trainable = sum(
        p.numel() for p in peft_model.parameters() if p.requires_grad and id(p) not in expected
    )
    wanted = placement.trainable_parameters
    if trainable == wanted:
        return []
    hint = "" if trainable else " (PeftModel.from_pretrained needs is_trainable=True to train on)"
    if unexpected := sorted(saved.keys() - set(whole)):
        hint = f" ({', '.join(unexpected)}: trained whole by modules_to_save; is that in `whole`?)"
    return [f"{trainable:,} trainable parameters instead of {wanted:,}{hint}"]


def _saved_whole(peft_model: Any) -> dict[str, Any]:
    """Return the copies that `modules_to_save` trains, by the path of the module in the base."""
    return {
        name.replace("_orig_mod.", "").replace("base_model.model.", ""): module.modules_to_save
        for name, module in peft_model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }
