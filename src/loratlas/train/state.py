"""What does a training know at a step, in a form that can be written to files and read back?

Plain data go to JSON, which gives every float back as it was, and tensors to safetensors. Nothing
that is read can run code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from loratlas.errors import VerificationError

_PLAIN, _TENSORS = "state.json", "state.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Plain data and tensors, each by a name of its own.

    Attributes:
        plain: what JSON can say.
        tensors: the values themselves: a state is written before training goes on.
    """

    plain: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Mapping[str, "State"], plain: Mapping[str, Any] | None = None) -> Self:
        """Return one state of several, each under its name, and of plain data beside them."""
        tensors = {
            f"{name}/{own}": tensor
            for name, part in parts.items()
            for own, tensor in part.tensors.items()
        }
        of_parts = {name: part.plain for name, part in parts.items()}
        return cls(plain={"own": dict(plain or {}), "parts": of_parts}, tensors=tensors)

    @property
    def own(self) -> dict[str, Any]:
        """The plain data beside the parts of a state that was joined."""
        found: dict[str, Any] = self.plain["own"]
        return found

    @property
    def names(self) -> list[str]:
        """The names of the parts of a state that was joined."""
        return list(self.plain["parts"])

    def part(self, name: str) -> "State":
        """Return one of the states that were joined."""
        start = f"{name}/"
        return State(
            plain=self.plain["parts"][name],
            tensors={
                own.removeprefix(start): tensor
                for own, tensor in self.tensors.items()
                if own.startswith(start)
            },
        )

    def on(self, device: torch.device) -> "State":
        """Return the state with its tensors on a device, in memory of their own."""
        moved = {name: each.to(device, copy=True) for name, each in self.tensors.items()}
        return State(plain=self.plain, tensors=moved)

    def copy_to(self, tensor: torch.Tensor, name: str) -> None:
        """Give a tensor the values it had.

        Raises:
            VerificationError: what was kept has another shape.
        """
        kept = self.tensors[name]
        if kept.shape != tensor.shape:
            raise VerificationError(
                f"the state that was kept does not fit what is trained: {name} has the shape "
                f"{tuple(kept.shape)} in place of {tuple(tensor.shape)}"
            )
        with torch.no_grad():
            tensor.copy_(kept)

    def write(self, folder: Path) -> None:
        """Write it to a folder.

        Raises:
            OSError: the folder cannot be written.
        """
        tensors = {name: each.detach().cpu().contiguous() for name, each in self.tensors.items()}
        try:
            save_file(tensors, folder / _TENSORS)
        except SafetensorError as error:  # which is its word for a full disk, too
            raise OSError(str(error)) from error
        (folder / _PLAIN).write_text(json.dumps(self.plain, allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what was written to a folder; tensors lie on the CPU, in memory of their own."""
        plain = json.loads((folder / _PLAIN).read_text(encoding="utf-8"))
        # Copied, because the file is mapped and will be deleted.
        tensors = {name: each.clone() for name, each in load_file(folder / _TENSORS).items()}
        return cls(plain=plain, tensors=tensors)
