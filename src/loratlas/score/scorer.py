"""What is a scorer, what is it given, and what does it give back?

A scorer is one file of this folder. It says beforehand what it needs, reads rows of the training
split through the frozen base, and returns arrays in the order of the sites it was asked about.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Anatomy, Site
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import LoraSpec
from loratlas.train.base import Base
from loratlas.train.trial import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is scored.

    Attributes:
        base: the frozen base, lent for the time of scoring and given back as it was.
        anatomy: of the base.
        sites: the sites in question, in the order of the model.
        rows: training rows to read, in order; at least two for a method that reads any.
        lora: rank, alpha, scaling of the adapters that a method trains or imagines.
        training: how a method trains that trains.
        seed: of everything that a method draws.
        batch: rows of one pass. Methods that go backward take more of short rows; rows go one by
            one where a map would mix them.
        max_rank: longest curve that is asked for.
        masking: how rows are masked, for a masked language model.
        indices: of the rows among all training rows, which decide the masks that a trial gives
            them; None where these are all of them.
    """

    base: Base
    anatomy: Anatomy
    sites: tuple[Site, ...]
    rows: Sequence[TokenizedRow]
    lora: LoraSpec
    training: TrainingSpec
    seed: int
    batch: int = 4
    max_rank: int = 16
    masking: Masking | None = None
    indices: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a method cannot do without.

    Attributes:
        rows: it reads rows of the training split.
        labels: it reads what is predicted in them.
        gradients: it runs backward through the model.
        weights: it reads the frozen weights as numbers, which a quantised base does not show.
        training: it trains adapters.
    """

    rows: bool = True
    labels: bool = False
    gradients: bool = False
    weights: bool = False
    training: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method found; arrays are in the order of the subject's sites.

    Attributes:
        values: shape (sites,).
        stderr: standard errors over rows, shape (sites,); NaN where one site has none.
        curves: marginal value of each rank, from the first on; None for a site without.
        halves: values from the first and from the second half of the rows, shape (2, sites).
        num_tokens: tokens that each value was taken from, shape (sites,).
        expert_tokens: tokens that each expert of a site was sent; None where that is not known, and
            for a site of one map.
        slices: values of the parts of a fused output, by part; None for a site of one part.
        num_forwards: rows that went forward.
        num_backwards: rows that went backward.
        notes: what a person should know of these scores.
    """

    values: NDArray[np.float64]
    stderr: NDArray[np.float64] | None = None
    curves: Sequence[NDArray[np.float64] | None] | None = None
    halves: NDArray[np.float64] | None = None
    num_tokens: NDArray[np.int64] | None = None
    expert_tokens: Sequence[Sequence[int] | None] | None = None
    slices: Sequence[dict[str, float] | None] | None = None
    num_forwards: int = 0
    num_backwards: int = 0
    notes: tuple[str, ...] = field(default=())


class Scorer(Protocol):
    """A method; instances are made by `score.methods`.

    Attributes:
        name: as a person writes it.
        title: what its value is, in one sentence.
        unit: of its values.
        higher_is_better: whether sites with a larger value should be adapted first.
        granularity: how finely its values differ.
        needs: what it cannot do without.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    granularity: Granularity
    needs: Needs

    def why_not(self, subject: Subject) -> str | None:
        """Return why the method cannot score this, or None where it can; nothing is computed."""

    def measure(self, subject: Subject) -> Found:
        """Score the sites; the base is as it was before, whatever happens.

        Raises:
            TrialError: a loss or a value is no number.
        """
