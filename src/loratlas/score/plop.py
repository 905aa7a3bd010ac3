"""How much longer does a map make what it reads than it would make a random vector? PLoP.

The normalised feature norm of a map W is the mean over tokens z of ‖W z‖/‖z‖ · √d_in/‖W‖_F: 1 for
inputs of no special direction, more where weights and inputs are aligned. PLoP adapts the types of
module that have the lowest (S. Hayou, N. Ghosh and B. Yu, arXiv 2506.20629; soufiane001/plop). It
takes forward passes alone: neither targets nor gradients.

As in the official code, norms are not squared, a bias takes no part, and a type has the plain mean
of its maps; what each map has by itself is there, too (`plop_site`). Otherwise than there, padding
does not count, a token weighs the same whatever batch it comes in, the norm for a random vector is
exact, √E‖W u‖² = ‖W‖_F/√d_in, and Conv1D's weight is read as (d_in, d_out), which it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.pytorch_utils import Conv1D

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.errors import TrialError
from loratlas.score.inputs import Call, maps_of, read_forward, why_no_inputs
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
        reasons = (_why_no_weight(site, subject) for site in subject.sites)
        return why_no_inputs(subject) or next(filter(None, reasons), None)

    def measure(self, subject: Subject) -> Found:
        """Score the sites, and the parts of those that are fused.

        Raises:
            TrialError: a weight is zero, or no token reaches a site in a half of the rows.
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
        paths = [subject.sites[each.site].path for each in maps]
        self.means = TokenMeans(paths, len(subject.rows))
        self._maps = list(enumerate(maps))
        self._modules = [holder_of(subject.base.model, site)[0] for site in subject.sites]
        self._scales = [
            _scale(path, self._modules[each.site], each.outputs)
            for path, each in zip(paths, maps, strict=True)
        ]

    def add(self, call: Call) -> None:
        """Take in one call of a site."""
        lengths = _lengths(call.inputs.float())
        told = lengths > 0  # a token that is read as zero shows no direction
        outputs = call.outputs.float()
        if (bias := self._modules[call.site].bias) is not None:
            outputs -= bias.float()
        for number, each in self._maps:
            if each.site == call.site:
                stretch = _lengths(outputs[:, each.outputs])[told] / lengths[told]
                self.means.add(number, call.rows[told], stretch * self._scales[number])


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


def _scale(path: str, module: torch.nn.Module, outputs: Part) -> float:
    """Return √d_in/‖W‖_F."""
    stored: torch.Tensor = module.weight.detach()  # type: ignore[operator, assignment]
    weight = stored.mT if isinstance(module, Conv1D) else stored
    norm = float(torch.linalg.vector_norm(weight[outputs], dtype=torch.float32))
    if norm == 0:
        raise TrialError(f"{path}: its weight is zero, so that it has no feature norm")
    return float(weight.shape[1] ** 0.5 / norm)


def _lengths(vectors: torch.Tensor) -> Floats:
    """Return the norms of vectors of shape (tokens, width)."""
    lengths: Floats = torch.linalg.vector_norm(vectors, dim=1).cpu().double().numpy()
    return lengths


def _why_no_weight(site: Site, subject: Subject) -> str | None:
    module, _ = holder_of(subject.base.model, site)
    if not isinstance(module, torch.nn.Linear | Conv1D):
        kind = type(module).__name__
        return f"{site.path} is a {kind}; the weights of Linear and Conv1D are read"
    if module.weight.dtype not in _PLAIN:
        return f"{site.path} is quantised ({module.weight.dtype}); its weight cannot be read"
    return None
