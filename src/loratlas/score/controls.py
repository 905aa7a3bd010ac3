"""What do scores say that know nothing of data and weights? The controls.

Each goes through the same allocator, at the same budget, as the methods that it stands beside. A
method that is not better than these has not shown that its scores matter.
"""

import numpy as np

from loratlas.allocate.table import Granularity
from loratlas.allocate.trivial import depth
from loratlas.anatomy.sites import Site
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


class Random(_Control):
    """Chance decides, from the seed and the path: a site's value is the same in any company."""

    name = "random"
    title = "a number drawn uniformly from 0 to 1 for the seed and the path"
    unit = "1"

    def _value(self, site: Site, subject: Subject) -> float:
        return score_noise(subject.seed, site.path)


class Parameters(_Control):
    """What one unit of rank costs; of budgets in parameters and bytes it makes equal ranks.

    Equal values would not: a rank that adds as much everywhere is bought where it is cheap, and
    narrow sites get several times the rank of wide ones. With its cost as a site's value, a
    parameter is worth the same at any two sites of one rank, and all ranks rise together. Of what
    is left after the last rank that is bought everywhere, some sites get one more, seldom two.
    """

    name = "parameters"
    title = "adapter parameters of one unit of rank"
    unit = "parameters"

    def _value(self, site: Site, subject: Subject) -> float:  # noqa: ARG002
        return float(site.parameters_per_rank)


class Uniform(Parameters):
    """The same values, by the name of the ranks that come of them."""

    name = "uniform"
    title = "the same as parameters, of which an allocator makes equal ranks"


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
        return float(depth(site, subject.anatomy))
