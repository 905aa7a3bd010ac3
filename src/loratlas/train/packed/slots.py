"""Which adapters does a pack hold, and where do their values, gradients and scales lie?

Each trial has one slot. All values of a slot lie in one vector, site after site, A before B, and
so do its gradients: clipping and the optimiser then take a handful of operations a trial.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from loratlas.placement.placement import Placement
from loratlas.train.randomness import initial_a, mask_seed
from loratlas.train.state import State


class SlotSite(NamedTuple):
    """One adapter of one trial: views into the vectors of its slot.

    Attributes:
        a: shape (rank, d_in).
        b: shape (d_out, rank).
        grad_a: as `a`.
        grad_b: as `b`.
        scale: what B·A is multiplied by.
    """

    a: torch.Tensor
    b: torch.Tensor
    grad_a: torch.Tensor
    grad_b: torch.Tensor
    scale: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """The adapters of one trial.

    Attributes:
        placement: where they are.
        values: every A and B, fp32, shape (trainable_parameters,).
        sites: views into `values` and its gradient by path.
        seed: of the trial.
        dropout: share of an adapter's input that is left out in training.
    """

    placement: Placement
    values: torch.nn.Parameter
    sites: Mapping[str, SlotSite]
    seed: int
    dropout: float

    @classmethod
    def new(
        cls, placement: Placement, *, seed: int, dropout: float, device: torch.device
    ) -> "Slot":
        """Return fresh adapters: A as `randomness` draws it per (seed, site), B zero."""
        values = torch.zeros(placement.trainable_parameters, device=device)
        gradient = torch.zeros_like(values)
        parameter = torch.nn.Parameter(values)
        parameter.grad = gradient
        own, gradients = dict(cut(placement, parameter.detach())), dict(cut(placement, gradient))
        sites = {}
        for adapter in placement.adapters:
            path, d_in = adapter.site.path, adapter.site.d_in
            sites[path] = SlotSite(*own[path], *gradients[path], placement.scale(adapter))
            drawn = initial_a(seed, path, rank=adapter.rank, d_in=d_in)
            sites[path].a.copy_(torch.from_numpy(drawn))
        return cls(placement=placement, values=parameter, sites=sites, seed=seed, dropout=dropout)

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient of `values`."""
        assert self.values.grad is not None
        return self.values.grad

    def begin_step(self) -> None:
        """Forget the gradients of the step before; a trial that was stopped has none."""
        if self.values.grad is not None:
            self.values.grad.zero_()

    def stop(self) -> None:
        """Take the gradient away: the optimiser leaves the adapters alone from now on."""
        self.values.grad = None

    def state(self) -> State:
        """Return what was trained so far; everything else follows from the trial."""
        return State(tensors={"values": self.values.detach()})

    def restore(self, state: State) -> None:
        """Go on from what was trained before.

        Raises:
            VerificationError: it was another trial.
        """
        state.copy_to(self.values, "values")

    def mask_generator(self, step: int, path: str, row: int) -> torch.Generator:
        """Return what draws the dropout masks of a site in an optimiser step, from a row on."""
        generator = torch.Generator(device=self.values.device)
        return generator.manual_seed(mask_seed(self.seed, step, path, row))


def cut(
    placement: Placement, vector: torch.Tensor
) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Yield what belongs to A (rank, d_in) and to B (d_out, rank) of each site, in order."""
    start = 0
    for adapter in placement.adapters:
        rank, d_in, d_out = adapter.rank, adapter.site.d_in, adapter.site.d_out
        middle, stop = start + rank * d_in, start + rank * (d_in + d_out)
        a, b = vector[start:middle].view(rank, d_in), vector[middle:stop].view(d_out, rank)
        yield adapter.site.path, (a, b)
        start = stop
