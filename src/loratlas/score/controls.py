"""What do scores say that know nothing of data and weights? The controls.

Each goes through the same allocator, at the same budget, as the methods that it stands beside. A
method that is not better than these has not shown that its scores matter.
"""

from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.train.randomness import score_noise


class _Control:
    """A method that reads neither rows nor weights, and costs nothing."""

    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs(rows=False)

    def why_not(self, subject: Subject) -> str | None:  # noqa: ARG002
        """Return None: there is nothing that it cannot score."""
        return None

    def measure(self, subject: Subject) -> Found:
        """Score the sites."""
        return Found(values=np.array([self._value(site, subject) for site in subject.sites]))

    def _value(self, site: Site, subject: Subject) -> float:
        raise NotImplementedError


class Uniform(_Control):
    """Every site is worth the same, and an allocator gives all the same rank.

    Equal values alone would not do that: a rank that adds as much everywhere is bought where it is
    cheap, and narrow sites get several times the rank of wide ones. So a site's curve has what one
    unit of rank costs there as a factor: a parameter is worth the same at any two sites of one
    rank, and all ranks rise together. That holds for budgets in parameters and in bytes; of what is
    left after the last rank that is bought everywhere, some sites get one more, seldom two.
    """

    name = "uniform"
    title = "the same for every site"
    unit = "1"

    def measure(self, subject: Subject) -> Found:
        """Score the sites."""
        curves = [_rising(site, subject) for site in subject.sites]
        return replace(super().measure(subject), curves=curves)

    def _value(self, site: Site, subject: Subject) -> float:  # noqa: ARG002
        return 1.0


def _rising(site: Site, subject: Subject) -> NDArray[np.float64]:
    """Return what each rank adds to c · log(1 + r / rank of the study), c being its cost.

    It is what an allocator makes of single values, c in the place of the value.
    """
    ranks = np.arange(1 + min(subject.max_rank, site.d_in, site.d_out))
    return site.parameters_per_rank * np.diff(np.log1p(ranks / subject.lora.rank))


class Random(_Control):
    """Chance decides, from the seed and the path: a site's value is the same in any company."""

    name = "random"
    title = "a number drawn uniformly from 0 to 1 for the seed and the path"
    unit = "1"

    def _value(self, site: Site, subject: Subject) -> float:
        return score_noise(subject.seed, site.path)


class Parameters(_Control):
    """What one unit of rank costs; an allocator of single values makes equal ranks of it, too."""

    name = "parameters"
    title = "adapter parameters of one unit of rank"
    unit = "parameters"

    def _value(self, site: Site, subject: Subject) -> float:  # noqa: ARG002
        return float(site.parameters_per_rank)


class InputWidth(_Control):
    """How wide the input is: what a raw LoRA gradient is biased by."""

    name = "d_in"
    title = "number of input features"
    unit = "features"

    def _value(self, site: Site, subject: Subject) -> float:  # noqa: ARG002
        return float(site.d_in)


class Depth(_Control):
    """How many blocks come before a site, its own counted; an encoder's before a decoder's."""

    name = "depth"
    title = (
        "number of the block from 1 on, an encoder's first; 0 for embeddings, one more than the "
        "last block for whatever else stands outside blocks"
    )
    unit = "blocks"

    def _value(self, site: Site, subject: Subject) -> float:
        return float(_depth(site, subject.anatomy))


def _depth(site: Site, anatomy: Anatomy) -> int:
    if site.layer is None or site.stack is None:
        return 0 if site.role.family is Family.EMBEDDING else anatomy.num_layers + 1
    sizes = anatomy.stacks.values()
    before = dict(zip(anatomy.stacks, accumulate(sizes, initial=0), strict=False))
    return before[site.stack] + site.layer + 1
