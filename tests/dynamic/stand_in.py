"""A stand-in for the engine: it holds columns, makes up gradients, and carries changes out."""

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

import anatomies
from loratlas.dynamic.spec import PolicySpec, build, initial_placement, largest, smallest
from loratlas.placement.placement import LoraSpec, place
from loratlas.train.policy import Grow, LiveSite, Prune, Silence


def placement(rule="all", *, rank=4, layers=2):
    """A placement of a small Llama, in which sites differ in cost."""
    anatomy = anatomies.llama(width=8, layers=layers, key_value=4, inner=12)
    return place(anatomy, rule, rank=rank, alpha=rank)


def policy_of(name, candidates, target, steps, **options):
    """Where a trial of a policy begins, and the policy."""
    spec = PolicySpec.read({"policy": name, **options})
    begun = initial_placement(spec, candidates, target, LoraSpec(rank=4, alpha=4))
    policy = build(spec, placement=begun, target_parameters=target, total_steps=steps)
    return begun, policy


def options(**more):
    """Draw what a policy is told of its schedule, and some of what it alone can be told."""
    of_all = {
        "warmup": st.sampled_from([0, 0.1, 0.3]),
        "final": st.sampled_from([0, 0.2, 0.6]),
        "interval": st.integers(1, 50),
        "min_rank": st.integers(0, 1),
    }
    return st.fixed_dictionaries({}, optional={**of_all, **more})


class Case(NamedTuple):
    """A trial on sites whose gradients differ much, and its policy."""

    target: int
    min_rank: int
    policy: Any
    trial: "StandIn"

    @classmethod
    def of(cls, name, options, *, seed, steps, share):
        """Aim at a share of the candidates' parameters, as near as a target can be."""
        candidates = placement()
        spec = PolicySpec.read({"policy": name, **options})
        sites = [adapter.site for adapter in candidates.adapters]
        wanted = int(share * candidates.trainable_parameters)
        target = min(max(smallest(spec, sites), wanted), largest(spec, sites))
        begun, policy = policy_of(name, candidates, target, steps, **options)
        weights = {path: 10.0 ** (i % 5) for i, path in enumerate(sorted(begun.by_path))}
        trial = StandIn(begun, form=policy.form, seed=seed, weights=weights)
        assert trial.num_parameters <= policy.budget(0)
        return cls(target, spec.options.min_rank, policy, trial)


class StandIn:
    """Adapters of one trial with random weights and gradients."""

    def __init__(self, placed, *, form="product", seed=0, weights=None):
        self.generator = torch.Generator().manual_seed(seed)
        self.form = form
        self.sites = {adapter.site.path: adapter.site for adapter in placed.adapters}
        self.columns = {each.site.path: tuple(range(each.rank)) for each in placed.adapters}
        self.next = {each.site.path: each.rank for each in placed.adapters}
        self.silent = {path: frozenset() for path in self.sites}
        self.fresh = {}
        """Columns that were grown at the last change, by path."""
        self.weights = weights or {}
        """What the gradients of a site are multiplied by, by path; 1 where there is none."""

    @property
    def ranks(self):
        return {path: len(columns) for path, columns in self.columns.items()}

    @property
    def num_parameters(self):
        return sum(site.num_parameters for site in self.live().values())

    def live(self):
        """The adapters after another backward pass."""
        return {path: self._live(path) for path in self.sites}

    def _live(self, path):
        site, columns = self.sites[path], self.columns[path]
        count = len(columns)
        scale = self.weights.get(path, 1.0)
        more = {}
        if self.form == "svd":
            alive = torch.tensor([column not in self.silent[path] for column in columns])
            more = {"gate": self._draw(count) * alive, "grad_gate": scale * self._draw(count)}
        return LiveSite(
            site=site,
            scale=1.0,
            columns=columns,
            silent=self.silent[path],
            a=self._draw(count, site.d_in),
            b=self._draw(site.d_out, count),
            grad_a=scale * self._draw(count, site.d_in),
            grad_b=scale * self._draw(site.d_out, count),
            **more,
        )

    def _draw(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def apply(self, changes):
        """Carry changes out in their order; what an engine could not do is an error."""
        self.fresh = {}
        for change in changes:
            getattr(self, f"_{type(change).__name__.lower()}")(change)

    def _prune(self, change: Prune):
        there = self.columns[change.path]
        assert change.columns
        assert set(change.columns) <= set(there)
        self.columns[change.path] = tuple(k for k in there if k not in change.columns)
        self.silent[change.path] -= set(change.columns)

    def _grow(self, change: Grow):
        assert self.form == "product"
        assert change.num_columns > 0
        first = self.next[change.path]
        self.next[change.path] += change.num_columns
        self.fresh[change.path] = tuple(range(first, first + change.num_columns))
        self.columns[change.path] += self.fresh[change.path]

    def _silence(self, change: Silence):
        assert self.form == "svd"
        assert change.columns <= set(self.columns[change.path])
        assert change.columns != self.silent[change.path]
        self.silent[change.path] = change.columns

    def train(self, policy, steps, *, first=1, seen=None):
        """Yield (step, changes) for each step at which something changed."""
        for step in range(first, steps + 1):
            sites = self.live()
            policy.observe(step, seen(step, sites) if seen else sites)
            changes = list(policy.decide(step, sites))
            self.apply(changes)
            if changes:
                yield step, changes
            assert self.num_parameters <= policy.budget(step)
