"""What does a policy see of the adapters of its trial, and what may it change of them?

A policy moves a placement while it is trained. It sees signals after each backward pass and decides
after optimiser steps; the engine carries the decisions out and keeps what must hold: growth
preserves the function, moments follow their columns, scales stay, budgets are kept, and every
decision is written down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch

from loratlas.anatomy.sites import Site
from loratlas.train.state import State

Form = Literal["product", "svd"]
"""How ΔW is made: of B·A, or of P·diag(λ)·Q with Q in the place of A and P in that of B."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LiveSite:
    """The adapter at one site as it stands; tensors are views that a policy only reads.

    A column k is one unit of rank: row k of A and column k of B.

    Attributes:
        site: where it is.
        scale: what ΔW is multiplied by.
        columns: identity of each column, in order; one that was pruned never comes back.
        silent: columns that are held at zero and count nothing, with λ = 0; only in the svd form.
        a: A, or Q: shape (columns, d_in).
        b: B, or P: shape (d_out, columns).
        grad_a: gradient of the trial's loss in the last step, as `a`.
        grad_b: as `b`.
        gate: λ, shape (columns,); None in the product form.
        grad_gate: gradient of `gate`, of silent columns, too; None in the product form.
        reached: whether the loss has a gradient here, a truth value without shape; None where the
            gradients are the loss's and nothing was added to them.
    """

    site: Site
    scale: float
    columns: tuple[int, ...]
    silent: frozenset[int] = frozenset()
    a: torch.Tensor
    b: torch.Tensor
    grad_a: torch.Tensor
    grad_b: torch.Tensor
    gate: torch.Tensor | None = None
    grad_gate: torch.Tensor | None = None
    reached: torch.Tensor | None = None

    @property
    def num_parameters(self) -> int:
        """Adapter parameters that count: those of columns that are not silent."""
        return (len(self.columns) - len(self.silent)) * self.site.parameters_per_rank


class Prune(NamedTuple):
    """Take columns away for good."""

    path: str
    columns: tuple[int, ...]


class Grow(NamedTuple):
    """Add columns that compute nothing yet: A drawn anew, B zero."""

    path: str
    num_columns: int


class Silence(NamedTuple):
    """Hold these columns of a site at zero from now on, and let its others live (svd form)."""

    path: str
    columns: frozenset[int]


Change = Prune | Grow | Silence


class Policy(Protocol):
    """Decides where a trial's parameters are while it trains.

    Attributes:
        name: as a person writes it.
        form: how ΔW is made.
        orthogonality: weight in the loss of the mean of ‖PᵀP - I‖ and ‖QQᵀ - I‖ over all sites
            (svd form).
    """

    name: str
    form: Form
    orthogonality: float

    def budget(self, step: int) -> int:
        """Return the most parameters that may be live after an optimiser step, from 0 on."""

    def observe(self, step: int, sites: Mapping[str, LiveSite]) -> None:
        """Take note of the gradients of a step, counted from 1.

        In the product form before clipping and before the step. In the svd form after both, as
        AdaLoRA does: a silent gate has moved by then as it would, and is put back afterwards.
        """

    def decide(self, step: int, sites: Mapping[str, LiveSite]) -> Sequence[Change]:
        """Return what changes after an optimiser step, counted from 1; mostly nothing."""

    def state(self) -> State:
        """Return what it has learned so far; together with what it was built from, all it knows."""

    def restore(self, state: State) -> None:
        """Know what the policy knew whose state it is, which was built from the same."""
