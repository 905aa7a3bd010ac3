"""Do scores say more than chance, and more than they would of nothing worth knowing? No torch.

Two questions, with Kendall's τ-b throughout (M. G. Kendall, Biometrika 33, 1945):

- *Repeatability.* Do two halves of the rows rank the sites alike? Shapes and depth alone make them
  do so: an untrained model, or rows whose targets were exchanged, repeat very well. So this shows
  noise, and never worth.
- *A null.* Does the ranking differ from those of subjects in which there is nothing to find, as
  rankings of such subjects do not differ among themselves? It is the check of J. Adebayo et al.,
  Sanity Checks for Saliency Maps, 2018 (arXiv 1810.03292), with several draws of the null, so that
  a bound can be given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from loratlas.allocate.table import ScoreTable

Floats = NDArray[np.float64]

LEVEL = 0.05
"""How often scores that say nothing are allowed to pass for informative."""
UNINFORMATIVE = "uninformative"
"""How a note begins that says so."""
FEWEST_VALUES = 4
"""Three values are ranked alike in one of six cases by chance, four in one of 24."""
NUM_NULLS = 4
"""Draws of a null. The bound lies 3.9 of their standard deviations below their mean; with three
it would be 6.7, with five 3.1."""

# Means of equal numbers differ by this at most.
_ROUNDING = 1e-9


def rank_agreement(first: Floats, second: Floats) -> float | None:
    """Return Kendall's τ-b of two scorings of the same sites.

    Args:
        first: shape (sites,).
        second: shape (sites,).

    Returns:
        from -1 to 1; None where one of them says the same of every site.
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.kendalltau(first, second).statistic)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeatability:
    """How far two halves of the rows agree.

    Attributes:
        tau: Kendall's τ-b over all sites; None where a half says the same of every site.
        p_value: one-sided, of "the halves have nothing to do with each other"; sites that share
            their values in both halves count as one.
        num_values: sites that do not share theirs.
    """

    tau: float | None
    p_value: float | None
    num_values: int

    @property
    def says(self) -> str | None:
        """What is to be doubted; None where the halves agree more than by chance."""
        if self.tau is None:
            return f"{UNINFORMATIVE}: a half of the rows gives every site the same value"
        if self.num_values < FEWEST_VALUES:
            return (
                f"{self.num_values} different values are too few to tell whether halves of the "
                "rows agree more than by chance"
            )
        if self.p_value is None or self.p_value <= LEVEL:
            return None
        return (
            f"{UNINFORMATIVE}: two halves of the rows agree no more than by chance "
            f"(Kendall's τ {self.tau:.2f} over {self.num_values} values, p {self.p_value:.2f})"
        )


def repeatability(halves: Floats) -> Repeatability:
    """Hold the values of two halves of the rows against each other.

    Args:
        halves: shape (2, sites).
    """
    tau = rank_agreement(halves[0], halves[1])
    distinct = np.unique(halves, axis=1)
    p_value = None
    if tau is not None:
        p_value = float(stats.kendalltau(*distinct, alternative="greater").pvalue)
    return Repeatability(tau=tau, p_value=p_value, num_values=distinct.shape[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class NullCheck:
    """How far the scores of a subject agree with those of draws of a null.

    Attributes:
        agreement: mean τ of the subject with the draws; None where the scores are constant.
        among: mean τ of the draws with one another.
        bound: one further draw would agree with the others less than this in 5% of cases.
    """

    agreement: float | None
    among: float | None
    bound: float | None

    @property
    def informative(self) -> bool:
        """Whether the subject differs from the draws more than they differ."""
        if self.agreement is None or self.bound is None:
            return False
        return self.agreement < self.bound - _ROUNDING


def against_nulls(values: Floats, nulls: Floats) -> NullCheck:
    """Ask whether scores could be those of one more draw of a null.

    The bound is a one-sided prediction bound over the draws' own mean agreement with the other
    draws, mean - t·sd·√(1 + 1/n) with n - 1 degrees of freedom. What sets a draw apart moves the
    means of the others, too, so that sd is wider by (n - 1) / (n - 2) than theirs.

    Args:
        values: scores of the subject, shape (sites,).
        nulls: scores of each draw, shape (draws, sites), at least three draws.
    """
    ours = [rank_agreement(values, null) for null in nulls]
    theirs = {
        pair: rank_agreement(nulls[pair[0]], nulls[pair[1]])
        for pair in combinations(range(len(nulls)), 2)
    }
    known = [tau for tau in ours if tau is not None]
    if len(known) < len(ours) or None in theirs.values():
        return NullCheck(agreement=None, among=None, bound=None)
    each = np.array(
        [
            np.mean([tau for pair, tau in theirs.items() if number in pair and tau is not None])
            for number in range(len(nulls))
        ]
    )
    count = len(each)
    deviation = float(each.std(ddof=1)) * (count - 1) / (count - 2)
    reach = float(stats.t.ppf(1 - LEVEL, count - 1)) * math.sqrt(1 + 1 / count)
    return NullCheck(
        agreement=float(np.mean(known)),
        among=float(each.mean()),
        bound=float(each.mean()) - reach * deviation,
    )


def uninformative(table: ScoreTable) -> tuple[str, ...]:
    """Return why a table's scores are uninformative, in sentences; none where they are not."""
    return tuple(note for note in table.notes if note.startswith(UNINFORMATIVE))


def oriented(table: ScoreTable, paths: Sequence[str]) -> Floats:
    """Return the values of some sites, larger for those that should be adapted first."""
    sign = 1.0 if table.higher_is_better else -1.0
    by_path = table.by_path
    return np.array([sign * by_path[path].value for path in paths])
