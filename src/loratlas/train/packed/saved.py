"""How the adapters of a slot are written for PEFT, and read back for scoring."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from loratlas.errors import VerificationError
from loratlas.train.adapters import write_adapters
from loratlas.train.base import Base
from loratlas.train.packed.slots import Slot


def save_slot(slot: Slot, folder: Path, base: Base) -> None:
    """Write the adapters of a slot in PEFT's format, with exact paths, in one step."""
    state = {}
    for path, site in slot.sites.items():
        state[f"base_model.model.{path}.lora_A.weight"] = site.a
        state[f"base_model.model.{path}.lora_B.weight"] = site.b
    write_adapters(
        {name: tensor.clone() for name, tensor in state.items()},
        slot.placement,
        folder,
        dropout=slot.dropout,
        base_name=base.ref.name,
        revision=base.ref.revision,
    )


def reload_slot(slot: Slot, folder: Path) -> None:
    """Take the adapters of a slot from what was written, so that what is scored is what is saved.

    Raises:
        VerificationError: the file does not hold the adapters that were trained.
    """
    state = load_file(folder / "adapter_model.safetensors")
    trained = slot.values.detach().clone()
    with torch.no_grad():
        slot.values.zero_()
        for path, site in slot.sites.items():
            site.a.copy_(state.pop(f"base_model.model.{path}.lora_A.weight"))
            site.b.copy_(state.pop(f"base_model.model.{path}.lora_B.weight"))
    if state or not torch.equal(slot.values, trained):
        raise VerificationError(f"{folder}: the saved adapters are not the trained ones")
