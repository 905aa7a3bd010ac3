"""Where do the columns of each site lie in a vector, and how do they move within it?

Values, gradients, moments and ages are vectors of one form: site after site A before B, in the svd
form with the gates behind both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from loratlas.placement.placement import Placement
from loratlas.train.packed.slots import cut
from loratlas.train.policy import Form


class Part(NamedTuple):
    """The columns of one site within a vector: rows of A, columns of B, gates."""

    a: torch.Tensor
    b: torch.Tensor
    gate: torch.Tensor

    def keep(self, places: Sequence[int]) -> None:
        """Move some columns to the front, in the order given; the others are zero from now on."""
        for tensor, axis in ((self.a, 0), (self.b, 1), (self.gate, 0)):
            if tensor.shape[axis]:
                index = torch.tensor(places, dtype=torch.long, device=tensor.device)
                kept = tensor.index_select(axis, index)
                tensor.zero_()
                tensor.narrow(axis, 0, len(places)).copy_(kept)


def parts(room: Placement, form: Form, vector: torch.Tensor) -> dict[str, Part]:
    """Return the columns of each site within a vector of the form of a slot's values."""
    found, start = {}, room.trainable_parameters
    for path, (a, b) in cut(room, vector):
        stop = start + len(a) if form == "svd" else start
        found[path] = Part(a, b, vector[start:stop])
        start = stop
    return found
