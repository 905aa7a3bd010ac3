"""Which adapters does a trial hold whose placement moves while it trains?

Every site has room for the most columns it may ever have; the live ones stand in front. What is
trained lies in one vector, as in any slot, and whatever follows it (moments, ages) has its form, so
that a column and all that belongs to it move together. In the svd form ΔW = P·diag(λ)·Q: Q stands
in the place of A, P in that of B, λ behind them, and the product reads B = P·diag(λ).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from loratlas.placement.placement import Adapter, Placement
from loratlas.train.packed.columns import Part, parts
from loratlas.train.packed.slots import Slot, SlotSite
from loratlas.train.policy import Form, LiveSite
from loratlas.train.randomness import initial_a, initial_weight
from loratlas.train.state import State

# AdaLoRA draws P and Q with this deviation (github.com/QingruZhang/AdaLoRA, loralib/adalora.py).
_SVD_DEVIATION = 0.02
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True, eq=False)
class ElasticSlot(Slot):
    """The adapters of a trial whose ranks change.

    Attributes:
        form: how ΔW is made.
        columns: identities of the live columns of each site, in order. Row k of the site's stream
            of initial values belongs to identity k, whenever it comes to life.
        silent: which of them are held at zero.
        born: how many columns each site has had.
        reached: whether the loss has a gradient at each site in the last step, in the svd form.
        products: B = P·diag(λ) and its gradient, by path, in the svd form.
    """

    form: Form
    sites: dict[str, SlotSite] = field(default_factory=dict)
    columns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    silent: dict[str, frozenset[int]] = field(default_factory=dict)
    born: dict[str, int] = field(default_factory=dict)
    reached: dict[str, torch.Tensor] = field(default_factory=dict)
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
        room = start.with_ranks(capacity)
        values = torch.nn.Parameter(torch.zeros(_num_values(room, form), device=device))
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
        per_rank = {path: each.site.parameters_per_rank for path, each in self.adapters.items()}
        return sum(rank * per_rank[path] for path, rank in self.ranks.items())

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
            self.reached[path] = of_b.any() | gradient.a.any()
            gradient.b.copy_(of_b * own.gate)
            gradient.gate.copy_((of_b * own.b).sum(dim=0))
            if orthogonality:
                weight = orthogonality / (2 * len(self.products))
                gradient.b[:, live].add_(_off_orthogonal(own.b[:, live]), alpha=weight)
                gradient.a[live].add_(_off_orthogonal(own.a[live].t()).t(), alpha=weight)

    def state(self) -> State:
        """Return what was trained so far, and which columns it belongs to."""
        sites = {
            path: {
                "columns": list(columns),
                "silent": sorted(self.silent[path]),
                "born": self.born[path],
            }
            for path, columns in self.columns.items()
        }
        return State(plain={"sites": sites}, tensors=super().state().tensors)

    def restore(self, state: State) -> None:
        """Go on from what was trained before, with the columns of then.

        Raises:
            VerificationError: it was another trial.
        """
        super().restore(state)
        for path, site in state.plain["sites"].items():
            self.columns[path] = tuple(site["columns"])
            self.silent[path] = frozenset(site["silent"])
            self.born[path] = site["born"]
            self.refresh(path)

    def at_rest(self) -> Slot:
        """Return the adapters as those of an ordinary slot: B·A wherever there is a column."""
        ranks = {path: rank for path, rank in self.ranks.items() if rank}
        slot = Slot.new(
            self.placement.with_ranks(ranks),
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
            reached=self.reached.get(path),
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


def elastic_bytes(start: Placement, capacity: Mapping[str, int], form: Form) -> int:
    """Return the bytes of a trial's adapters with all that follows them, in fp32.

    Values, gradient, two moments and ages have room for the largest ranks; in the svd form so have
    the products and their gradients.

    Args:
        start: the ranks in the beginning.
        capacity: most columns of each site, by path.
        form: how ΔW is made.
    """
    room = start.with_ranks(capacity)
    num_products = 2 * sum(a.site.d_out * a.rank for a in room.adapters) if form == "svd" else 0
    return 4 * (5 * _num_values(room, form) + num_products)


def _num_values(room: Placement, form: Form) -> int:
    """Return how many values there are: A and B of each site, in the svd form its gates, too."""
    num_gates = sum(adapter.rank for adapter in room.adapters) if form == "svd" else 0
    return room.trainable_parameters + num_gates


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
