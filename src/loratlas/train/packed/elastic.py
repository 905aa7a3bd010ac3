"""Which adapters does a trial hold whose placement moves while it trains?

Every site has room for the most columns it may ever have; the live ones stand in front. What is
trained lies in one vector, as in any slot, and whatever follows it (moments, ages) has its form, so
that a column and all that belongs to it move together. In the svd form ΔW = P·diag(λ)·Q: Q stands
in the place of A, P in that of B, λ behind them, and the product reads B = P·diag(λ).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from loratlas.placement.placement import Adapter, Placement
from loratlas.train.packed.slots import Slot, SlotSite, cut
from loratlas.train.policy import Form, LiveSite
from loratlas.train.randomness import initial_a, initial_weight

# AdaLoRA draws P and Q with this deviation (github.com/QingruZhang/AdaLoRA, loralib/adalora.py).
_SVD_DEVIATION = 0.02
_TINY = torch.finfo(torch.float32).tiny


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ElasticSlot(Slot):
    """The adapters of a trial whose ranks change.

    Attributes:
        form: how ΔW is made.
        columns: identities of the live columns of each site, in order. Row k of the site's stream
            of initial values belongs to identity k, whenever it comes to life.
        silent: which of them are held at zero.
        born: how many columns each site has had.
        products: B = P·diag(λ) and its gradient, by path, in the svd form.
    """

    form: Form
    sites: dict[str, SlotSite] = field(default_factory=dict)
    columns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    silent: dict[str, frozenset[int]] = field(default_factory=dict)
    born: dict[str, int] = field(default_factory=dict)
    products: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    adapters: Mapping[str, Adapter]
    """What `placement` holds, by path."""
    own: Mapping[str, Part]
    """The columns of each site in `values`."""
    gradients: Mapping[str, Part]
    """The columns of each site in the gradient."""

    @classmethod
    def begin(
        cls,
        start: Placement,
        capacity: Mapping[str, int],
        *,
        form: Form,
        seed: int,
        dropout: float,
        device: torch.device,
    ) -> "ElasticSlot":
        """Return fresh adapters: those of a placement, with room for more.

        Args:
            start: the ranks in the beginning; its sites are all that there will be.
            capacity: most columns of each site, by path; at least its rank in `start`.
            form: how ΔW is made.
            seed: of the trial.
            dropout: share of an adapter's input that is left out in training.
            device: where the adapters lie.
        """
        room = with_ranks(start, capacity)
        num_gates = sum(a.rank for a in room.adapters) if form == "svd" else 0
        values = torch.nn.Parameter(
            torch.zeros(room.trainable_parameters + num_gates, device=device)
        )
        values.grad = torch.zeros_like(values)
        slot = cls(
            placement=room,
            values=values,
            seed=seed,
            dropout=dropout,
            form=form,
            products=_products(room, device) if form == "svd" else {},
            adapters=room.by_path,
            own=parts(room, form, values.data),
            gradients=parts(room, form, values.grad),
        )
        for adapter in start.adapters:
            path = adapter.site.path
            slot.columns[path], slot.silent[path], slot.born[path] = (), frozenset(), 0
            slot.grow(path, adapter.rank, ())
        return slot

    @property
    def num_live(self) -> int:
        """Parameters of adapters that count now."""
        return sum(site.num_parameters for site in self.live().values())

    @property
    def ranks(self) -> dict[str, int]:
        """Columns that count at each site, by path."""
        return {path: len(c) - len(self.silent[path]) for path, c in self.columns.items()}

    def live(self) -> dict[str, LiveSite]:
        """Return the sites as a policy sees them, those without a column too."""
        return {path: self._live(path) for path in self.columns}

    def keep(self, path: str, columns: Sequence[int], followers: Sequence[Part]) -> None:
        """Take all columns of a site away but some.

        Args:
            path: of the site.
            columns: identities of those that stay.
            followers: what belongs to the columns of this site beside values and gradients.
        """
        before = self.columns[path]
        stays = [place for place, column in enumerate(before) if column in set(columns)]
        for part in (self.own[path], self.gradients[path], *followers):
            part.keep(stays)
        self.columns[path] = tuple(before[place] for place in stays)
        self.silent[path] &= frozenset(self.columns[path])
        self.refresh(path)

    def grow(self, path: str, count: int, followers: Sequence[Part]) -> None:
        """Add columns that compute nothing: A as drawn, B zero; svd form: P, Q as drawn, λ zero."""
        held, first = len(self.columns[path]), self.born[path]
        rows, own = slice(held, held + count), self.own[path]
        assert held + count <= len(own.a), f"{path} has room for {len(own.a)} columns"
        if self.form == "svd":
            p, q = self._drawn_svd(path, first + count)
            own.a[rows].copy_(q[first:])
            own.b[:, rows].copy_(p[first:].t())
        else:
            d_in = own.a.shape[1]
            drawn = initial_a(self.seed, path, rank=first + count, d_in=d_in)
            own.a[rows].copy_(torch.from_numpy(drawn[first:]))
        for part in followers:  # a new column has no past
            part.a[rows], part.b[:, rows], part.gate[rows] = 0, 0, 0
        self.columns[path] += tuple(range(first, first + count))
        self.born[path] += count
        self.refresh(path)

    def silence(self, path: str, columns: frozenset[int]) -> None:
        """Hold these columns of a site at zero, and let its others live."""
        self.silent[path] = columns
        self.settle()

    def settle(self) -> None:
        """After an optimiser step: silent columns stay at zero, products follow what they are of.

        Only the svd form has either.
        """
        for path in self.products:
            gate = self.own[path].gate
            for place, column in enumerate(self.columns[path]):
                if column in self.silent[path]:
                    gate[place] = 0
            self.refresh(path)

    def refresh(self, path: str) -> None:
        """Make what the flow reads of a site fit its columns and gates."""
        count = len(self.columns[path])
        own, gradients = self.own[path], self.gradients[path]
        b, grad_b = own.b, gradients.b
        if self.form == "svd":
            b, grad_b = self.products[path]
            torch.mul(own.b, own.gate, out=b)
        self.sites[path] = SlotSite(
            a=own.a[:count],
            b=b[:, :count],
            grad_a=gradients.a[:count],
            grad_b=grad_b[:, :count],
            scale=self._scale(path),
        )

    def begin_step(self) -> None:
        """Forget the gradients of the step before; a trial that was stopped has none."""
        super().begin_step()
        for _, gradient in self.products.values():
            gradient.zero_()

    def pull(self, orthogonality: float) -> None:
        """Turn the gradients of B into those of P and λ, and add those of the constraint."""
        for path, (_, of_b) in self.products.items():
            own, gradient = self.own[path], self.gradients[path]
            live = slice(len(self.columns[path]))
            gradient.b.copy_(of_b * own.gate)
            gradient.gate.copy_((of_b * own.b).sum(dim=0))
            if orthogonality:
                weight = orthogonality / (2 * len(self.products))
                gradient.b[:, live].add_(_off_orthogonal(own.b[:, live]), alpha=weight)
                gradient.a[live].add_(_off_orthogonal(own.a[live].t()).t(), alpha=weight)

    def at_rest(self) -> Slot:
        """Return the adapters as those of an ordinary slot: B·A wherever there is a column."""
        ranks = {path: rank for path, rank in self.ranks.items() if rank}
        slot = Slot.new(
            with_ranks(self.placement, ranks),
            seed=self.seed,
            dropout=self.dropout,
            device=self.values.device,
        )
        for path, site in slot.sites.items():
            counted = [
                place
                for place, column in enumerate(self.columns[path])
                if column not in self.silent[path]
            ]
            site.a.copy_(self.sites[path].a[counted])
            site.b.copy_(self.sites[path].b[:, counted])
        return slot

    def _live(self, path: str) -> LiveSite:
        own, gradients, live = self.own[path], self.gradients[path], slice(len(self.columns[path]))
        gated = self.form == "svd"
        return LiveSite(
            site=self.adapters[path].site,
            scale=self._scale(path),
            columns=self.columns[path],
            silent=self.silent[path],
            a=own.a[live],
            b=own.b[:, live],
            grad_a=gradients.a[live],
            grad_b=gradients.b[:, live],
            gate=own.gate[live] if gated else None,
            grad_gate=gradients.gate[live] if gated else None,
        )

    def _scale(self, path: str) -> float:
        return self.placement.scale(self.adapters[path])

    def _drawn_svd(self, path: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first rows of the site's streams for Pᵀ and Q."""
        d_out, d_in = len(self.own[path].b), self.own[path].a.shape[1]
        p, q = (
            torch.from_numpy(initial_weight(self.seed, f"{path}.{name}", shape, _SVD_DEVIATION))
            for name, shape in (("P", (count, d_out)), ("Q", (count, d_in)))
        )
        return p, q


def parts(room: Placement, form: Form, vector: torch.Tensor) -> dict[str, Part]:
    """Return the columns of each site within a vector of the form of a slot's values."""
    found, start = {}, room.trainable_parameters
    for path, (a, b) in cut(room, vector):
        stop = start + len(a) if form == "svd" else start
        found[path] = Part(a, b, vector[start:stop])
        start = stop
    return found


def with_ranks(placement: Placement, ranks: Mapping[str, int]) -> Placement:
    """Return a placement with other ranks at some of its sites, the scale of each as it was."""
    adapters = [
        replace(adapter, rank=rank, alpha=_alpha(placement, adapter, rank))
        for adapter in placement.adapters
        if (rank := ranks.get(adapter.site.path)) is not None
    ]
    return replace(placement, adapters=tuple(adapters))


def _alpha(placement: Placement, adapter: Adapter, rank: int) -> float:
    """Return the alpha that gives a rank the scale that the adapter has."""
    ratio = rank / adapter.rank
    return adapter.alpha * (ratio**0.5 if placement.scaling == "rslora" else ratio)


def _products(
    room: Placement, device: torch.device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        adapter.site.path: (
            torch.zeros(adapter.site.d_out, adapter.rank, device=device),
            torch.zeros(adapter.site.d_out, adapter.rank, device=device),
        )
        for adapter in room.adapters
    }


def _off_orthogonal(columns: torch.Tensor) -> torch.Tensor:
    """Return the gradient of ‖PᵀP - I‖ for P of shape (d, columns); zero where P is orthogonal.

    The paper has the square of the norm, summed over sites; the official code the norm itself,
    averaged (`compute_orth_regu`), and published runs are those of the code.
    """
    gram = columns.t() @ columns
    off = gram - torch.eye(len(gram), device=gram.device)
    gradient: torch.Tensor = 2 * columns @ off / off.norm().clamp(min=_TINY)
    return gradient
