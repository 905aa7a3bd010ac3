"""What is each rank of a site worth, by its score?

A table with curves says it itself: the utility of rank r is the sum of the first r marginal values,
a value below zero counting nothing. A table of single values does not, and a utility that grows in
proportion to the rank would fill the best sites to their highest rank and leave out all others.
There the utility is ``w · log(1 + r / τ)``, w being the value. Where the budget binds, ranks then
follow ``r = w / (λ c) - τ`` with c the cost of one rank and λ one number for all sites: the rank of
a site grows with its value per cost, and a site whose w / c is below λ τ is left out. With τ near
0 ranks are in proportion to w / c, as by GoRA's rule; with a large τ only the best sites have any.
The default is the rank of the study: there one more rank adds half of what the first did.

A value of a table by groups is that of a group as a whole, as when all of its sites are tried
together: the sites of the group share it equally. By types or layers it is a mean.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.table import ScoreTable, SiteScore
from loratlas.errors import DataError, PlacementError

# Far enough from the ends of what a float holds for shares of a sum and sums of products.
_LEAST, _MOST = 1e-200, 1e200


@dataclass(frozen=True, kw_only=True, slots=True)
class Utility:
    """What ranks are worth, by site.

    Attributes:
        weights: one number per site, at least 0, larger for sites that matter more; all 1 where
            nothing is worth anything, and where no value, but some curve, is above 0.
        curves: marginal values of each rank from the first on, at least 0; None where the weights
            are all there is.
        tau: τ of sites without a curve.
        notes: how scores had to be read.
    """

    weights: Mapping[str, float]
    curves: Mapping[str, NDArray[np.float64]] | None
    tau: float
    notes: tuple[str, ...] = ()

    def at(self, path: str, ranks: Sequence[int]) -> NDArray[np.float64]:
        """Return the utility of each of these ranks at a site, shape (ranks,)."""
        steps = np.asarray(ranks, dtype=np.int64)
        if self.curves is None:
            return self.weights[path] * np.log1p(steps / self.tau)
        sums = np.concatenate([[0.0], np.cumsum(self.curves[path])])
        return np.asarray(sums[np.minimum(steps, len(sums) - 1)])


def utility_of(table: ScoreTable, paths: Sequence[str], tau: float) -> Utility:
    """Read the utilities of sites from their scores.

    Where lower is better, a value v becomes ``max - v + min``: the order is turned round, and
    differences stay. A table with negative values has ``max - v``, so that order is kept, too.
    A value, or a marginal value, below zero is worth nothing. Where nothing is worth anything, all
    sites are worth the same, and a note says so.

    Args:
        table: checked scores; see `check_table`.
        paths: sites to choose from; each has a score.
        tau: τ of single values, above 0.

    Raises:
        PlacementError: τ is not above 0, or some of the sites have curves and others have none.
        DataError: values are too large, or too small, to be added up.
    """
    if not (isfinite(tau) and tau > 0):
        raise PlacementError(f"tau is a finite number above 0, not {tau!r}")
    scores = [table.by_path[path] for path in paths]
    weights = dict(zip(paths, _weights(scores, table), strict=True))
    curves = _curves(scores, table)
    notes: list[str] = []
    worth = list(weights.values() if curves is None else _totals(curves))
    if not any(worth):
        curves, weights = None, dict.fromkeys(paths, 1.0)
        notes.append("no score is above zero: every site is taken to be worth the same")
    elif not _LEAST < sum(worth) < _MOST:
        raise DataError(
            f"the scores by {table.method} add up to {sum(worth):g}; floats hold sums and shares "
            f"of what lies between {_LEAST:g} and {_MOST:g}"
        )
    if not any(weights.values()):
        weights = dict.fromkeys(paths, 1.0)
    return Utility(weights=weights, curves=curves, tau=tau, notes=tuple(notes))


def _totals(curves: Mapping[str, NDArray[np.float64]]) -> Iterator[float]:
    return (sum(curve.tolist()) for curve in curves.values())


def _weights(scores: Sequence[SiteScore], table: ScoreTable) -> list[float]:
    values = [float(score.value) for score in scores]
    if not table.higher_is_better:
        least, most = min(values), max(values)
        values = [most - value + max(least, 0.0) for value in values]
    if table.granularity == "group":
        sizes = Counter(score.group for score in table.scores)
        values = [value / sizes[own.group] for value, own in zip(values, scores, strict=True)]
    return [max(value, 0.0) for value in values]


def _curves(
    scores: Sequence[SiteScore], table: ScoreTable
) -> dict[str, NDArray[np.float64]] | None:
    without = [score.path for score in scores if score.curve is None]
    if len(without) == len(scores):
        return None
    if not table.higher_is_better:
        raise PlacementError(
            f"the scores by {table.method} say that lower is better and hold curves; a curve is "
            "what each rank adds, which is better when higher"
        )
    if without:
        raise PlacementError(
            f"{len(without)} of {len(scores)} sites have no curve by {table.method}, first "
            f"{without[0]}; a curve and a single value do not compare: choose among the others"
        )
    return {
        score.path: np.maximum(np.asarray(score.curve, dtype=np.float64), 0.0) for score in scores
    }
