"""With how many seeds would a difference such as this be found?

The variance of a difference over S seeds and E examples has two parts
(`loratlas.analysis.components`): one falls with the seeds, A / S, and one does not, B, because
every seed scores the same examples. If the truth is the difference that was observed, the power
of a one-sided t test with S seeds follows from the noncentral t distribution; where B alone is
too large, no number of seeds is enough.

The observed difference is itself uncertain, so the count is a plan and no promise.
"""

import math
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from loratlas.analysis.estimates import Estimate
from loratlas.analysis.power import POWER
from loratlas.analysis.verdicts import general

MOST_SEEDS = 100
Outcome = Literal["enough", "too many", "examples", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreSeeds:
    """How many seeds would tell whether a difference is there.

    Attributes:
        outcome: ``enough``: `in_all` seeds are; ``too many``: more than 100 are needed;
            ``examples``: no number is, since examples differ too much; ``unknown``: the
            difference is none, or has no uncertainty to judge by.
        more: beyond those that ran, None but for ``enough``.
        in_all: with those that ran, None but for ``enough``.
        most_power: with unlimited seeds and these examples, None where unknown.
    """

    outcome: Outcome
    more: int | None = None
    in_all: int | None = None
    most_power: float | None = None


def more_seeds(
    found: Estimate, level: float, *, power: float = POWER, most: int = MOST_SEEDS
) -> MoreSeeds:
    """Return the seeds with which a difference such as the observed one would be found.

    Args:
        found: the difference.
        level: of the one-sided test.
        power: probability of finding it.
        most: more seeds than this are not worth naming.
    """
    if not general(found) or not found.value:
        return MoreSeeds(outcome="unknown")
    unlimited = _power(found, level, math.inf)
    if unlimited < power:
        return MoreSeeds(outcome="examples", most_power=unlimited)
    for count in range(found.num_seeds + 1, most + 1):
        if _power(found, level, count) >= power:
            return MoreSeeds(
                outcome="enough",
                more=count - found.num_seeds,
                in_all=count,
                most_power=unlimited,
            )
    return MoreSeeds(outcome="too many", most_power=unlimited)


def _power(found: Estimate, level: float, num_seeds: float) -> float:
    """Return the power of a one-sided test at this level with so many seeds."""
    seeds, examples, of_examples = _parts(found)
    by_seeds = seeds / num_seeds
    variance = by_seeds + examples
    slack = by_seeds / (num_seeds - 1) + examples / of_examples
    assert found.value is not None
    if variance <= 0 or slack <= 0:
        return 1.0
    shift = abs(found.value) / math.sqrt(variance)
    freedom = variance / slack
    critical = float(stats.t.isf(level, freedom))
    reached = float(stats.nct.sf(critical, freedom, shift))
    # Far out scipy's tail is no number; there the shift alone decides.
    return reached if math.isfinite(reached) else float(shift > critical)


def _parts(found: Estimate) -> tuple[float, float, float]:
    """Return the variance of one seed's value, that of examples, and the latter's freedom."""
    assert found.standard_error is not None
    assert found.freedom is not None
    mean = math.fsum(found.per_seed) / len(found.per_seed)
    seeds = math.fsum((value - mean) ** 2 for value in found.per_seed) / (found.num_seeds - 1)
    variance = found.standard_error**2
    by_seeds = seeds / found.num_seeds
    examples = max(variance - by_seeds, 0.0)
    left = variance / found.freedom - by_seeds / (found.num_seeds - 1)
    # What rounding leaves of parts that are zero is none.
    if examples <= 1e-12 * variance or left <= 0:
        return seeds, 0.0, math.inf
    return seeds, examples, examples / left
