"""What can be asked of the gradients of one site's weight, row by row?

A map y = Wx that reads tokens x_t and has the loss gradients δ_t at its output has the gradient
G_n = Σ_t δ_t x_tᵀ for each row n. Products with G_n come from these factors, and so does its norm:
‖G_n‖² = Σ_{t,t'} (x_t·x_t')(δ_t·δ_t'), the ghost norm (I. Goodfellow, 1510.01799; for tokens X. Li
et al., 2110.05679, section 4). It is exact, and cheaper than G_n itself where rows are short
(Z. Bu et al., 2205.10683, choose between the two by the same rule as here).

No weight is read, so that it does not matter how the weights are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

Part = torch.Tensor | slice
"""Which outputs of a map belong to a part of it."""
WHOLE: tuple[Part, ...] = (slice(None),)


class RowGradients(Protocol):
    """Gradients of one site's weight in one pass, each row by itself, in fp32.

    A site holds one map, or several: its experts.
    """

    def energies(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return ‖G_n‖² of each part of the output, summed over maps, shape (rows, parts)."""

    def right(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return G_n M, shape (rows, maps, d_out, k), of M of shape (maps or 1, d_in, k)."""

    def left(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return Mᵀ G_n, shape (rows, maps, k, d_in), of M of shape (maps or 1, d_out, k)."""

    def transposed(self) -> "RowGradients":
        """Return the gradients of the transposed weight."""

    def joined(self) -> "RowGradients":
        """Return the sum of all rows' gradients, as that of one row."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Factored:
    """Gradients of one map by their factors.

    Attributes:
        inputs: x, shape (rows, tokens, d_in); what stands at padding is finite and has no say.
        deltas: δ, shape (rows, tokens, d_out), zero at padding.
    """

    inputs: torch.Tensor
    deltas: torch.Tensor

    def energies(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return ‖G_n‖² of each part, by the cheaper of two exact ways."""
        num_tokens, d_in = self.inputs.shape[1:]
        d_out = self.deltas.shape[2]
        if num_tokens * (d_in + d_out) < d_in * d_out:
            return ghost_norms(self.inputs, self.deltas, parts)
        return formed_norms(self.inputs, self.deltas, parts)

    def right(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return Δᵀ(X M): nothing of the weight's size is made."""
        found: torch.Tensor = self.deltas.float().mT @ (self.inputs.float() @ matrix)
        return found[:, None]

    def left(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return (Δ M)ᵀ X."""
        found: torch.Tensor = (self.deltas.float() @ matrix).mT @ self.inputs.float()
        return found[:, None]

    def transposed(self) -> RowGradients:
        """Return the same with factors exchanged."""
        return Factored(inputs=self.deltas, deltas=self.inputs)

    def joined(self) -> RowGradients:
        """Return the same with all tokens in one row."""
        return Factored(
            inputs=self.inputs.flatten(0, 1)[None], deltas=self.deltas.flatten(0, 1)[None]
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Formed:
    """The gradient of one row, formed: for parameters whose inputs are not seen.

    Attributes:
        weight: shape (maps, d_out, d_in).
    """

    weight: torch.Tensor

    def energies(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return ‖G‖² of each part, shape (1, parts)."""
        by_output = self.weight.float().square().sum((0, 2))
        return torch.stack([by_output[part].sum() for part in parts])[None]

    def right(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return G M, shape (1, maps, d_out, k)."""
        return (self.weight.float() @ matrix)[None]

    def left(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return Mᵀ G, shape (1, maps, k, d_in)."""
        return (matrix.mT @ self.weight.float())[None]

    def transposed(self) -> RowGradients:
        """Return the gradient of the transposed weight."""
        return Formed(weight=self.weight.mT)

    def joined(self) -> RowGradients:
        """Return the gradient itself: there is one row."""
        return self


def ghost_norms(inputs: torch.Tensor, deltas: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """Return ‖G_n‖² of each part, shape (rows, parts), from products between tokens."""
    alike = _product(inputs, inputs.mT)
    own = [deltas[..., part] for part in parts]
    found = [(alike * _product(each, each.mT)).sum((1, 2)) for each in own]
    # Sums of products of both signs: rounding may leave a gradient of nothing below zero.
    return torch.stack(found, dim=1).clamp_min(0)


def formed_norms(inputs: torch.Tensor, deltas: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """Return ‖G_n‖² of each part, shape (rows, parts), from G_n, one row after another."""
    found = []
    for row in range(len(inputs)):
        by_output = _product(deltas[row : row + 1].mT, inputs[row : row + 1])[0].square().sum(1)
        found.append(torch.stack([by_output[part].sum() for part in parts]))
    return torch.stack(found)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return a product of matrices by row, in fp32; factors in bf16 are widened where they must be.

    A GPU multiplies bf16 and sums in fp32 by itself, many times faster than it multiplies fp32.
    """
    if left.dtype is torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
