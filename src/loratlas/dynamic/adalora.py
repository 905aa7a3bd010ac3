"""How does AdaLoRA move its rank: which triplets of P·diag(λ)·Q does it silence, and when?

Importance and schedule are those of the paper (arXiv 2303.10512, equations 8 to 12, algorithm 1)
and of `RankAllocator` in ``peft/tuners/adalora/layer.py``, with these differences: a triplet that
is silenced stays so until the next decision, whatever the interval (there λ moves away from zero
again); ties are broken, where there all that tie are silenced; the budget may count parameters,
where sites differ in cost; and what is silent at the last decision is pruned for good.
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


@dataclass(kw_only=True, eq=False)
class AdaLora:
    """Silences triplets, and prunes the silent ones at last; one instance serves one trial.

    Silent triplets are scored like all others, and may come back at a later decision.

    Attributes:
        schedule: the budget, in the unit of the options.
        options: what the policy was told.
        placement: where the trial begins.
    """

    schedule: Schedule
    options: AdaLoraOptions
    placement: Placement
    name: str = "adalora"
    form: Form = "svd"
    orthogonality: float = field(init=False)
    _importances: dict[str, "_Triplets"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.orthogonality = self.options.orthogonality

    def budget(self, step: int) -> int:
        """Return the most parameters that may be live after a step.

        Where the budget counts ranks, these are what so many of the dearest columns cost.
        """
        budget = self.schedule.budget(step)
        return budget if self.options.unit == "parameters" else self._dearest[budget]

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
        kept = keep(columns, self.schedule.budget(step), min_rank=self.options.min_rank)
        if step < self.schedule.last:
            return silences(sites, kept)
        # What is pruned goes first, so that what comes back finds room.
        return [*prunes(sites, kept), *revivals(sites, kept)]

    def _columns(self, site: LiveSite) -> list[Column]:
        path = site.site.path
        cost = site.site.parameters_per_rank if self.options.unit == "parameters" else 1
        known = self._importances.get(path) or _Triplets.none(site)
        scores: list[float] = known.scores().tolist()
        pairs = zip(site.columns, scores, strict=True)
        return [Column(path, number, cost, score) for number, score in pairs]

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

    def after(self, site: LiveSite, options: AdaLoraOptions) -> "_Triplets":
        """Return the importances after one more step; no gradient at all is no observation."""
        gate, grad_gate = _gate(site)
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
