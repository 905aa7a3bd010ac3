"""Do scores say more than chance, and more than they would of nothing worth knowing? No torch.

Two questions:

- *Repeatability.* Do two halves of the rows rank the sites alike, by Kendall's τ-b (M. G. Kendall,
  Biometrika 33, 1945)? Shapes, depth and the weights as they happen to be make them do so: on the
  bundled tasks the halves agree with τ 0.73 to 1.00 on a study's rows, 0.83 to 0.96 where targets
  were exchanged, and 0.70 to 1.00 in an untrained model (benchmarks/results/nulls.md). So this
  shows noise, not worth.
- *A null.* Do the scores differ from those of subjects in which there is nothing to find? It is the
  check of J. Adebayo et al., Sanity Checks for Saliency Maps, 2018 (arXiv 1810.03292), with several
  draws of the null, so that their own differences say what is large.
"""

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
FEWEST_VALUES = 4
"""Three values are ranked alike in one of six cases by chance, four in one of 24."""
NUM_NULLS = 6
"""Draws of a null. One more draw can be exchanged with them, and of n + 1 worlds at most one lies
farther from all others than any two of those from each other: it passes for informative in at most
one of seven cases."""

# Distances that should be equal differ by less.
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
    def uninformative(self) -> str | None:
        """Why the scores say nothing; None where the halves do not show that."""
        if self.tau is None:
            return "a half of the rows gives every site the same value"
        if self._is_short or self.p_value is None or self.p_value <= LEVEL:
            return None
        return (
            "two halves of the rows agree no more than by chance "
            f"(Kendall's τ {self.tau:.2f} over {self.num_values} values, p {self.p_value:.2f})"
        )

    @property
    def note(self) -> str | None:
        """What a person is to doubt; None where the halves agree more than by chance."""
        if self.uninformative is not None:
            return note_of(self.uninformative)
        if not self._is_short:
            return None
        return (
            f"{self.num_values} different values are too few to tell whether halves of the rows "
            "agree more than by chance"
        )

    @property
    def _is_short(self) -> bool:
        return self.num_values < FEWEST_VALUES


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
    """How the scores of a subject stand beside those of draws of a null.

    Attributes:
        distance: to the nearest draw: the standard deviation over sites of the logarithm of the
            ratio of their values, so that a factor common to all sites plays no part.
        spread: the largest distance between two draws.
        agreement: mean τ of the subject with the draws; None where scores are constant.
        among: mean τ of the draws with one another; None there.
    """

    distance: float
    spread: float
    agreement: float | None
    among: float | None

    @property
    def informative(self) -> bool:
        """Whether the subject lies farther from every draw than any two of them lie apart."""
        return self.distance > self.spread + _ROUNDING


def against_nulls(values: Floats, nulls: Floats) -> NullCheck:
    """Ask whether scores could be those of one more draw of a null.

    Ratios are looked at and not ranks: the scores of untrained models may all be next to equal, and
    any ranking is then like theirs. Sites whose value is zero somewhere are left out.

    Args:
        values: scores of the subject, none below zero, shape (sites,).
        nulls: scores of each draw, shape (draws, sites), at least two draws.
    """
    every = np.vstack([values, nulls])
    logs = np.log(every[:, (every > 0).all(axis=0)])
    pairs = list(combinations(range(1, len(every)), 2))
    taus = [rank_agreement(values, null) for null in nulls]
    theirs = [rank_agreement(every[first], every[second]) for first, second in pairs]
    return NullCheck(
        distance=min(_distance(logs[0], other) for other in logs[1:]),
        spread=max(_distance(logs[first], logs[second]) for first, second in pairs),
        agreement=_mean(taus),
        among=_mean(theirs),
    )


def _distance(first: Floats, second: Floats) -> float:
    return float(np.std(first - second)) if len(first) > 1 else 0.0


def _mean(taus: Sequence[float | None]) -> float | None:
    known = [tau for tau in taus if tau is not None]
    return sum(known) / len(known) if len(known) == len(taus) else None


def note_of(reason: str) -> str:
    """Return the note that tells a person why scores say nothing."""
    return f"uninformative: {reason}"


def oriented(table: ScoreTable, paths: Sequence[str]) -> Floats:
    """Return the values of some sites, larger for those that should be adapted first."""
    sign = 1.0 if table.higher_is_better else -1.0
    by_path = table.by_path
    return np.array([sign * by_path[path].value for path in paths])
