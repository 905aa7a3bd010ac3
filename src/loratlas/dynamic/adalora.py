"""How does AdaLoRA move its rank: which triplets of P·diag(λ)·Q does it silence, and when?

Importance and schedule are those of the paper (arXiv 2303.10512, equations 8 to 12, algorithm 1)
and of `RankAllocator` in ``peft/tuners/adalora/layer.py``, with these differences: a triplet that
is silenced stays so until the next decision, whatever the interval (there λ moves away from zero
again); ties are broken, where there all that tie are silenced; the budget may count parameters,
where sites differ in cost; where it counts ranks, what they cost in the end has a limit, too; and
what is silent at the last decision is pruned for good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch

from loratlas.dynamic.changes import prunes, revivals, silences
from loratlas.dynamic.options import AdaLoraOptions
from loratlas.dynamic.schedule import Schedule
from loratlas.dynamic.selection import Column, keep
from loratlas.placement.placement import Placement
from loratlas.train.policy import Change, Form, LiveSite
from loratlas.train.state import State


@dataclass(kw_only=True, eq=False)
class AdaLora:
    """Silences triplets, and prunes the silent ones at last; one instance serves one trial.

    Silent triplets are scored like all others, and may come back at a later decision.

    Attributes:
        schedule: the budget, in the unit of the options.
        options: what the policy was told.
        placement: where the trial begins.
        target: most parameters from the last decision on, whatever the budget counts.
    """

    schedule: Schedule
    options: AdaLoraOptions
    placement: Placement
    target: int
    name: str = "adalora"
    form: Form = "svd"
    orthogonality: float = field(init=False)
    _importances: dict[str, "_Triplets"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.orthogonality = self.options.orthogonality

    def budget(self, step: int) -> int:
        """Return the most parameters that may be live after a step.

        Where the budget counts ranks, these are what so many of the dearest columns cost, and the
        target from the last decision on.
        """
        budget = self.schedule.budget(step)
        if self.options.unit == "parameters":
            return budget
        dearest = self._dearest[budget]
        return dearest if step < self.schedule.last else min(self.target, dearest)

    @torch.no_grad()
    def observe(self, step: int, sites: Mapping[str, LiveSite]) -> None:
        """Average importance and uncertainty of every entry; what is left out is as it was.

        As in the paper's own code, the step of the last decision is not observed any more.
        """
        if step < self.schedule.last:
            for path, site in sites.items():
                known = self._importances.get(path) or _Triplets.none(site)
                self._importances[path] = known.after(site, self.options)

    def decide(self, step: int, sites: Mapping[str, LiveSite]) -> Sequence[Change]:
        """Return what is silent from now on, or at last what is pruned."""
        if not self.schedule.decides(step):
            return ()
        columns = [column for site in sites.values() for column in self._columns(site)]
        budget, min_rank = self.schedule.budget(step), self.options.min_rank
        if step < self.schedule.last:
            return silences(sites, keep(columns, budget, min_rank=min_rank))
        kept = keep(columns, budget, min_rank=min_rank, most_parameters=self.target)
        # What is pruned goes first, so that what comes back finds room.
        return [*prunes(sites, kept), *revivals(sites, kept)]

    def state(self) -> State:
        """Return importance and uncertainty at each site."""
        return State.joined({path: known.state() for path, known in self._importances.items()})

    def restore(self, state: State) -> None:
        """Know importance and uncertainty as they were."""
        self._importances = {path: _Triplets.kept(state.part(path)) for path in state.names}

    def _columns(self, site: LiveSite) -> list[Column]:
        path, parameters = site.site.path, site.site.parameters_per_rank
        cost = parameters if self.options.unit == "parameters" else 1
        known = self._importances.get(path) or _Triplets.none(site)
        scores: list[float] = known.scores().tolist()
        pairs = zip(site.columns, scores, strict=True)
        return [Column(path, number, cost, score, parameters=parameters) for number, score in pairs]

    @cached_property
    def _dearest(self) -> list[int]:
        """What the n dearest columns cost together, for n from 0 on."""
        columns = ((each.site.parameters_per_rank, each.rank) for each in self.placement.adapters)
        costs = (cost for cost, rank in columns for _ in range(rank))
        return list(accumulate(sorted(costs, reverse=True), initial=0))


class _Importance(NamedTuple):
    """Importance of each entry of a tensor, and how much it varies; both shaped like it."""

    smooth: torch.Tensor
    uncertainty: torch.Tensor

    @classmethod
    def none(cls, weight: torch.Tensor) -> "_Importance":
        return cls(torch.zeros_like(weight), torch.zeros_like(weight))

    def after(
        self,
        weight: torch.Tensor,
        gradient: torch.Tensor,
        reached: torch.Tensor,
        options: AdaLoraOptions,
    ) -> "_Importance":
        """Return both after one more step: Ī averages I = |w·g|, and U averages |I - Ī|."""
        now = (weight * gradient).abs()
        observed = reached & now.isfinite()
        smooth = options.beta * self.smooth + (1 - options.beta) * now
        varied = (now - smooth).abs()
        uncertainty = options.beta2 * self.uncertainty + (1 - options.beta2) * varied
        return _Importance(
            torch.where(observed, smooth, self.smooth),
            torch.where(observed, uncertainty, self.uncertainty),
        )

    @property
    def score(self) -> torch.Tensor:
        return self.smooth * self.uncertainty


class _Triplets(NamedTuple):
    """Importances at one site, each shaped like its tensor: of P, λ and Q."""

    p: _Importance
    gate: _Importance
    q: _Importance

    @classmethod
    def none(cls, site: LiveSite) -> "_Triplets":
        gate, _ = _gate(site)
        return cls(_Importance.none(site.b), _Importance.none(gate), _Importance.none(site.a))

    @classmethod
    def kept(cls, state: State) -> "_Triplets":
        """Return the importances whose state this is."""
        kept = state.tensors
        return cls(
            *(_Importance(kept[f"{of}.smooth"], kept[f"{of}.uncertainty"]) for of in cls._fields)
        )

    def state(self) -> State:
        """Return each tensor under what it is of."""
        return State(
            tensors={
                f"{of}.{name}": tensor
                for of, importance in self._asdict().items()
                for name, tensor in importance._asdict().items()
            }
        )

    def after(self, site: LiveSite, options: AdaLoraOptions) -> "_Triplets":
        """Return the importances after one more step.

        Where the loss has no gradient at all, nothing was observed, whatever the constraint adds.
        """
        gate, grad_gate = _gate(site)
        reached = site.reached
        if reached is None:
            reached = grad_gate.any() | site.grad_a.any() | site.grad_b.any()
        return _Triplets(
            self.p.after(site.b, site.grad_b, reached, options),
            self.gate.after(gate, grad_gate, reached, options),
            self.q.after(site.a, site.grad_a, reached, options),
        )

    def scores(self) -> torch.Tensor:
        """Return the score of each triplet, shape (columns,): s(λ) + mean s(P) + mean s(Q)."""
        return self.gate.score + (self.q.score.mean(dim=1) + self.p.score.mean(dim=0))


def _gate(site: LiveSite) -> tuple[torch.Tensor, torch.Tensor]:
    assert site.gate is not None
    assert site.grad_gate is not None
    return site.gate, site.grad_gate
