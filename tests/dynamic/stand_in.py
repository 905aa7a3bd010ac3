"""A stand-in for the engine: it holds columns, makes up gradients, and carries changes out."""

import torch

import anatomies
from loratlas.placement.placement import place
from loratlas.train.policy import Grow, LiveSite, Prune, Silence


def placement(rule="all", *, rank=4, layers=2):
    """A placement of a small Llama, in which sites differ in cost."""
    anatomy = anatomies.llama(width=8, layers=layers, key_value=4, inner=12)
    return place(anatomy, rule, rank=rank, alpha=rank)


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
