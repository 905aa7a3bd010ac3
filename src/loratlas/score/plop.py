"""How much longer does a map make what it reads than it would make a random vector? PLoP.

The normalised feature norm of a map W is the mean over tokens z of ‖W z‖/‖z‖ · √d_in/‖W‖_F: 1 for
inputs of no special direction, more where weights and inputs are aligned. PLoP adapts the types of
module that have the lowest (S. Hayou, N. Ghosh and B. Yu, arXiv 2506.20629; soufiane001/plop). It
takes forward passes alone: neither targets nor gradients.

As in the official code, norms are not squared, a bias takes no part, and a type has the plain mean
of its maps; what each map has by itself is there, too (`plop_site`). Otherwise than there, padding
does not count, a token weighs the same whatever batch it comes in, the norm for a random vector is
exact, √E‖W u‖² = ‖W‖_F/√d_in, and Conv1D's weight is read as (d_in, d_out), which it is. Stacked
experts, which it does not know, have the mean over the tokens that each is sent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.pytorch_utils import Conv1D

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.errors import TrialError
from loratlas.score.expert_reads import (
    ExpertRead,
    expert_reads,
    expert_weights,
    why_no_expert_input,
)
from loratlas.score.inputs import Call, maps_of, read_forward, why_no_input
from loratlas.score.row_gradients import Part
from loratlas.score.sample import holder_of
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.slices import Slices
from loratlas.score.token_means import TokenMeans

Floats = NDArray[np.float64]

# A quantised weight has another type, and what its numbers mean stands elsewhere.
_PLAIN = {torch.float64, torch.float32, torch.bfloat16, torch.float16}


class Plop:
    """Normalised feature norms by type: sites of one role share the mean of their own."""

    name = "plop"
    title = "length of a site's output against that for a random input, mean over its role"
    unit = "normalised feature norm"
    higher_is_better = False
    granularity: Granularity = "type"
    needs = Needs(weights=True)

    def why_not(self, subject: Subject) -> str | None:
        """Return which site has no input or no weight that can be read, or None."""
        reasons = (_why_not(site, subject) for site in subject.sites)
        return next(filter(None, reasons), None)

    def measure(self, subject: Subject) -> Found:
        """Score the sites, and the parts of those that are fused.

        Raises:
            TrialError: a weight is zero, what a site reads is no number, or no token of a half of
                the rows reaches a role.
        """
        slices = Slices(subject)
        maps = [*_wholes(subject.sites), *_parts(slices)]
        norms = FeatureNorms(subject, maps)
        read_forward(subject, maps_of(subject), norms.add)
        shares = _shares([self._type_of(each, subject.sites) for each in maps])
        num_sites = len(subject.sites)
        values = shares @ norms.means.means()
        return Found(
            values=values[:num_sites],
            stderr=norms.means.stderr(shares)[:num_sites],
            halves=(norms.means.of_halves() @ shares.T)[:, :num_sites],
            num_tokens=norms.means.num_tokens[:num_sites],
            slices=_named(slices, values[num_sites:]),
            num_forwards=len(subject.rows),
            notes=tuple(norms.notes()),
        )

    def _type_of(self, each: "_Map", sites: Sequence[Site]) -> str:
        """Return what maps that share a mean have in common."""
        return f"{sites[each.site].role} {each.name}"


class PlopSite(Plop):
    """Normalised feature norms of each site by itself, before PLoP takes means over types."""

    name = "plop_site"
    title = "length of a site's output against that for a random input"
    granularity: Granularity = "site"

    def _type_of(self, each: "_Map", sites: Sequence[Site]) -> str:
        return f"{sites[each.site].path} {each.name}"


class _Map(NamedTuple):
    """A site, or a part of one: which outputs, and its name among the parts."""

    site: int
    outputs: Part = slice(None)
    name: str = ""


class FeatureNorms:
    """Normalised feature norms of maps, token by token.

    Attributes:
        means: of each map.
    """

    def __init__(self, subject: Subject, maps: Sequence[_Map]) -> None:
        self.means = TokenMeans(
            [f"{subject.sites[each.site].role} {each.name}".strip() for each in maps],
            len(subject.rows),
        )
        self._maps = list(enumerate(maps))
        self._sites = subject.sites
        self._modules = [holder_of(subject.base.model, site)[0] for site in subject.sites]
        self._scales = [
            _scales(self._sites[each.site], self._modules[each.site], each.outputs) for each in maps
        ]
        self._idle = {
            (module, expert)
            for site, module in zip(subject.sites, self._modules, strict=True)
            for expert in range(site.num_experts or 0)
        }
        self._num_experts = len(self._idle)

    def add(self, call: Call) -> None:
        """Take in one call of a site."""
        for read in self._reads(call):
            lengths = _lengths(read.inputs.float())
            if not np.isfinite(lengths).all():
                path = self._sites[call.site].path
                raise TrialError(f"{path}: reads what is no number: nothing to score")
            told = lengths > 0  # a token that is read as zero shows no direction
            rows = call.rows[read.tokens.cpu().numpy()][told]
            outputs = read.outputs.float()
            for number, each in self._maps:
                if each.site == call.site:
                    stretch = _lengths(outputs[:, each.outputs])[told] / lengths[told]
                    self.means.add(number, rows, stretch * self._scales[number][read.expert])
            self._idle.discard((self._modules[call.site], read.expert))

    def notes(self) -> Iterator[str]:
        """Say how many experts were sent no token, and which sites have no value of their own."""
        num_tokens = self.means.num_tokens
        unread = [
            self._sites[each.site].path
            for number, each in self._maps
            if not each.name and not num_tokens[number]
        ]
        if unread:
            yield (
                f"{len(unread)} of {len(self._sites)} sites read no token, first {unread[0]}: the "
                "mean of the others of their role stands for them."
            )
        if self._idle:
            yield (
                f"{len(self._idle)} of {self._num_experts} experts were sent no token and take no "
                "part."
            )

    def _reads(self, call: Call) -> Iterator[ExpertRead]:
        """Yield what a site read and made of it, without bias; a map is its own only expert."""
        site, module = self._sites[call.site], self._modules[call.site]
        if site.kind == "expert":
            yield from expert_reads(call, site, module)
            return
        outputs = call.outputs.float()
        if module.bias is not None:
            outputs -= module.bias.float()
        yield ExpertRead(0, torch.arange(len(outputs)), call.inputs, outputs)


def _wholes(sites: Sequence[Site]) -> list[_Map]:
    return [_Map(number) for number in range(len(sites))]


def _parts(slices: Slices) -> list[_Map]:
    return [
        _Map(number, outputs, name)
        for number, names in enumerate(slices.names)
        if names is not None
        for outputs, name in zip(slices.parts[number], names, strict=True)
    ]


def _named(slices: Slices, values: Floats) -> list[dict[str, float] | None]:
    """Return the values of the parts of each site by their names."""
    following = iter(values.tolist())
    return [
        None if names is None else {name: next(following) for name in names}
        for names in slices.names
    ]


def _shares(types: Sequence[str]) -> Floats:
    """Return what part each map has in the value of another, shape (maps, maps)."""
    labels = np.array(types)
    together = (labels[:, None] == labels).astype(np.float64)
    shares: Floats = together / together.sum(1, keepdims=True)
    return shares


def _scales(site: Site, module: Any, outputs: Part) -> Floats:
    """Return √d_in/‖W‖_F of each map of a site, shape (maps,).

    Raises:
        TrialError: a weight is zero.
    """
    norms = torch.linalg.vector_norm(
        _weights(site, module)[:, outputs], dim=(1, 2), dtype=torch.float32
    )
    if not bool(norms.all()):
        raise TrialError(f"{site.path}: its weight is zero, so that it has no feature norm")
    scales: Floats = site.d_in**0.5 / norms.cpu().double().numpy()
    return scales


def _weights(site: Site, module: Any) -> torch.Tensor:
    """Return the maps of a site, shape (maps, d_out, d_in)."""
    if site.kind == "expert":
        return expert_weights(site, module)
    weight: torch.Tensor = module.weight.detach()
    return (weight.mT if isinstance(module, Conv1D) else weight)[None]


def _lengths(vectors: torch.Tensor) -> Floats:
    """Return the norms of vectors of shape (tokens, width)."""
    lengths: Floats = torch.linalg.vector_norm(vectors, dim=1).cpu().double().numpy()
    return lengths


def _why_not(site: Site, subject: Subject) -> str | None:
    """Return why a site has no input or no weight that can be read, or None."""
    is_expert = site.kind == "expert"
    why = why_no_expert_input if is_expert else why_no_input
    if (said := why(site, subject)) is not None:
        return said
    module, name = holder_of(subject.base.model, site)
    if not is_expert and not isinstance(module, torch.nn.Linear | Conv1D):
        kind = type(module).__name__
        return f"{site.path} is a {kind}; the weights of Linear and Conv1D are read"
    dtype = getattr(module, name).dtype
    if dtype not in _PLAIN:
        return f"{site.path} is quantised ({dtype}); its weight cannot be read"
    return None
