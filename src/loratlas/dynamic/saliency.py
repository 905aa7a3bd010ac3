"""How does plain LoRA move its rank to where a gate on each column would have most effect?

With a gate g = 1 on column k, that is ΔW = s·Σ_k g_k·B_k·A_k, the chain rule gives
∂L/∂g_k = ⟨B_k, ∇B_k⟩ = ⟨A_k, ∇A_k⟩: exact, and free with the gradients that training has anyway.
Its size is, to first order, what the loss would change by without the column. The columns of least
saliency per parameter are pruned under a cubic budget (AdaLoRA, arXiv 2303.10512), and the sites
that own the most salient ones grow (ElaLoRA, arXiv 2504.00254).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from loratlas.dynamic.changes import prunes
from loratlas.dynamic.options import SaliencyOptions
from loratlas.dynamic.schedule import Schedule
from loratlas.dynamic.selection import Column, grow, keep
from loratlas.train.policy import Change, Form, Grow, LiveSite
from loratlas.train.state import State


@dataclass(kw_only=True, eq=False)
class Saliency:
    """Prunes and grows columns of plain LoRA; one instance serves one trial.

    A column that was grown is protected at the next decision: its B began at zero, and so did its
    saliency. At the last decision nothing is pruned to make room for new columns; those that are
    grown fill what is free.

    Attributes:
        schedule: the budget in parameters.
        options: what the policy was told.
        capacities: largest rank by path.
        smallest: parameters of the smallest placement; room for new columns is not made below.
        priors: what saliency is multiplied by, by path; 1 where there is none.
    """

    schedule: Schedule
    options: SaliencyOptions
    capacities: Mapping[str, int]
    smallest: int
    priors: Mapping[str, float] = field(default_factory=dict)
    name: str = "saliency"
    form: Form = "product"
    orthogonality: float = 0.0
    _averages: dict[str, "_Average"] = field(default_factory=dict, init=False)
    _last_decision: int = field(default=0, init=False)

    def budget(self, step: int) -> int:
        """Return the most parameters that may be live after a step."""
        return self.schedule.budget(step)

    @torch.no_grad()
    def observe(self, step: int, sites: Mapping[str, LiveSite]) -> None:
        """Average the gate gradients of a step; a site that is left out is as it was."""
        if step <= self.schedule.last:
            for path, site in sites.items():
                average = self._average(step, site)
                self._averages[path] = average.after(site, self.options.beta)

    def decide(self, step: int, sites: Mapping[str, LiveSite]) -> Sequence[Change]:
        """Return what to prune, then what to grow; nothing between decisions."""
        if not self.schedule.decides(step):
            return ()
        columns = [column for site in sites.values() for column in self._columns(step, site)]
        self._last_decision = step
        budget = self.schedule.budget(step)
        explored = self.options.explore * self.schedule.left(step)
        limit = max(self.smallest, int(budget * (1 - explored)))
        kept = keep(columns, limit, min_rank=self.options.min_rank)
        pruned = prunes(sites, kept)
        if step == self.schedule.total_steps:  # what is grown now would never be trained
            return pruned
        room = budget - sum(column.cost for column in kept)
        grown = grow(kept, room, self.capacities)
        return [*pruned, *(Grow(path, count) for path, count in grown.items())]

    def state(self) -> State:
        """Return the averages, and when the last decision was."""
        averages = {path: average.state() for path, average in self._averages.items()}
        return State.joined(averages, {"last_decision": self._last_decision})

    def restore(self, state: State) -> None:
        """Know the averages as they were."""
        self._averages = {path: _Average.kept(state.part(path)) for path in state.names}
        self._last_decision = state.own["last_decision"]

    def _average(self, step: int, site: LiveSite) -> "_Average":
        path = site.site.path
        known = self._averages.get(path) or _Average.none(site.b)
        return known.fitted(site.columns, step)

    def _columns(self, step: int, site: LiveSite) -> list[Column]:
        path, cost = site.site.path, site.site.parameters_per_rank
        average = self._averages[path] = self._average(step, site)
        weight = self.priors.get(path, 1.0) / cost
        return [
            Column(path, number, cost, value * weight, protected=0 < self._last_decision < first)
            for number, value, first in zip(
                average.columns, average.values(), average.first, strict=True
            )
        ]


def gate_gradient(site: LiveSite) -> torch.Tensor:
    """Return ∂L/∂g_k of each column, shape (columns,): ⟨B_k, ∇B_k⟩, which is ⟨A_k, ∇A_k⟩."""
    return (site.b * site.grad_b).sum(dim=0)


class _Average(NamedTuple):
    """Running average of |∂L/∂g| over the columns of a site, free of the bias of its zero start.

    Attributes:
        columns: the columns.
        first: at which step each was first seen.
        total: weighted sum of the observations, shape (columns,).
        weight: sum of their weights, shape (columns,); 0 where there was none.
    """

    columns: tuple[int, ...]
    first: tuple[int, ...]
    total: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def none(cls, like: torch.Tensor) -> "_Average":
        return cls((), (), like.new_zeros(0), like.new_zeros(0))

    @classmethod
    def kept(cls, state: State) -> "_Average":
        """Return the average whose state this is."""
        columns, first = (tuple(state.plain[name]) for name in ("columns", "first"))
        return cls(columns, first, **state.tensors)

    def state(self) -> State:
        """Return columns and sums."""
        return State(
            plain={"columns": list(self.columns), "first": list(self.first)},
            tensors={"total": self.total, "weight": self.weight},
        )

    def fitted(self, columns: tuple[int, ...], step: int) -> "_Average":
        """Return the average over the columns as they are now; new ones begin with nothing."""
        if columns == self.columns:
            return self
        places = {number: place for place, number in enumerate(self.columns)}
        there = [place for place, number in enumerate(columns) if number in places]
        before = [places[columns[place]] for place in there]
        total = self.total.new_zeros(len(columns))
        weight = self.weight.new_zeros(len(columns))
        total[there], weight[there] = self.total[before], self.weight[before]
        first = (self.first[places[number]] if number in places else step for number in columns)
        return _Average(columns, tuple(first), total, weight)

    def after(self, site: LiveSite, beta: float) -> "_Average":
        """Return the average with one more observation.

        A column that no gradient reached was not observed, which is not the same as zero; nor was
        one whose gradient is no number.
        """
        size = gate_gradient(site).abs()
        reached = site.grad_b.any(dim=0) | site.grad_a.any(dim=1)
        observed = reached & size.isfinite()
        total = torch.where(observed, beta * self.total + (1 - beta) * size, self.total)
        weight = torch.where(observed, beta * self.weight + (1 - beta), self.weight)
        return self._replace(total=total, weight=weight)

    def values(self) -> list[float]:
        """Return the averages, 0 for a column without an observation."""
        found: list[float] = torch.where(
            self.weight > 0, self.total / self.weight, torch.zeros_like(self.total)
        ).tolist()
        return found
