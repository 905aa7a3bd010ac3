"""Do scorers rank groups of sites as brute force does, and do trivial predictors do as well?

For each scorer Kendall's τ-b with what brute force found (`loratlas.study.brute_force`) over groups
of sites, beside what can be said of a group without any data: its parameters, its depth, the width
of its inputs, and chance.

Brute force gives a group one value. Of a scorer's values for the sites of a group the mean is
taken, or the sum: gradients' energies add up, and larger groups then rank higher as they do in
brute force; ratios, such as PLoP's, do not add up. Where groups differ in size, both are worth a
look.

The interval is a bootstrap over groups, by percentiles: it captures *other groups of this kind*,
and neither new rows nor new seeds. Groups that are drawn twice tie with themselves, which τ-b
leaves out of both counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.agreement import Floats, oriented, rank_agreement
from loratlas.allocate.table import ScoreTable
from loratlas.allocate.trivial import depth
from loratlas.analysis.intervals import CONFIDENCE
from loratlas.anatomy.sites import Anatomy
from loratlas.study.groups import SiteGroup

Combine = Literal["mean", "sum"]

NUM_RESAMPLES = 9_999
FEWEST_GROUPS = 5
"""Of four groups there are 24 rankings: even perfect agreement occurs by chance in one of 24."""
_BATCH_ELEMENTS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How a scorer ranks groups beside brute force.

    Attributes:
        method: the scorer, or the trivial predictor.
        trivial: whether it knows nothing of data and weights.
        tau: Kendall's τ-b; None where the scorer, or brute force, says the same of every group.
        interval: of τ; None where there is no τ, or too few groups.
        num_groups: groups.
        says: what cannot be said.
    """

    method: str
    trivial: bool = False
    tau: float | None
    interval: tuple[float, float] | None = None
    num_groups: int
    says: tuple[str, ...] = ()


def agreements(
    truth: ScoreTable,
    tables: Sequence[ScoreTable],
    groups: Sequence[SiteGroup],
    anatomy: Anatomy,
    *,
    seed: int,
    combine: Combine = "mean",
) -> list[Agreement]:
    """Hold scorers and trivial predictors against what brute force found.

    Args:
        truth: scores by brute force over these groups.
        tables: scores of the same sites by other methods.
        groups: the groups, at least two; see `loratlas.study.groups`.
        anatomy: the model that they belong to.
        seed: of the bootstrap, and of the predictor that is chance.
        combine: what becomes of the values of a group's sites.
    """
    wanted = by_group(truth, groups, "mean")
    found = [
        _agreement(table.method, by_group(table, groups, combine), wanted, seed=seed)
        for table in tables
    ]
    trivial = trivial_predictors(groups, anatomy, seed=seed)
    return found + [
        _agreement(name, values, wanted, seed=seed, trivial=True)
        for name, values in trivial.items()
    ]


def by_group(table: ScoreTable, groups: Sequence[SiteGroup], combine: Combine) -> Floats:
    """Return one value for each group, larger for what should be adapted first, shape (groups,)."""
    values = [oriented(table, [site.path for site in group.sites]) for group in groups]
    return np.array([each.mean() if combine == "mean" else each.sum() for each in values])


def trivial_predictors(
    groups: Sequence[SiteGroup], anatomy: Anatomy, *, seed: int
) -> Mapping[str, Floats]:
    """Return what can be said of groups without any data, shape (groups,) each.

    They are parameters of one rank at every site of the group, the mean depth of its sites
    (`loratlas.allocate.trivial`), the mean width of the inputs, and a number drawn for each group.
    """
    return {
        "parameters": np.array([float(group.parameters_per_rank) for group in groups]),
        "depth": np.array([np.mean([depth(site, anatomy) for site in g.sites]) for g in groups]),
        "d_in": np.array([np.mean([site.d_in for site in group.sites]) for group in groups]),
        "random": np.random.default_rng(seed).random(len(groups)),
    }


def _agreement(
    method: str, values: Floats, wanted: Floats, *, seed: int, trivial: bool = False
) -> Agreement:
    tau = rank_agreement(values, wanted)
    interval, says = None, []
    if tau is None:
        which = "It says" if np.ptp(values) == 0 else "Brute force says"
        says.append(f"{which} the same of every group: there is nothing to rank.")
    elif len(values) < FEWEST_GROUPS:
        says.append(
            f"{len(values)} groups: fewer than {FEWEST_GROUPS} are too few for an interval."
        )
    else:
        interval = bootstrap_interval(values, wanted, seed=seed)
    return Agreement(
        method=method,
        trivial=trivial,
        tau=tau,
        interval=interval,
        num_groups=len(values),
        says=tuple(says),
    )


def bootstrap_interval(
    first: Floats,
    second: Floats,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float]:
    """Return the percentile interval of Kendall's τ-b over groups.

    Resamples in which one of the two is constant have no τ, and are left out.

    Args:
        first: shape (groups,), not all the same.
        second: shape (groups,), not all the same.
        seed: of the resampling.
        confidence: coverage, between 0 and 1.
        num_resamples: how often groups are drawn.
    """
    chance, count = np.random.default_rng(seed), len(first)
    orders = [np.sign(each[:, None] - each[None, :]) for each in (first, second)]
    size = max(1, _BATCH_ELEMENTS // count**2)
    found = []
    for start in range(0, num_resamples, size):
        drawn = chance.integers(count, size=(min(size, num_resamples - start), count))
        found.append(_taus(*(order[drawn[:, :, None], drawn[:, None, :]] for order in orders)))
    taus = np.concatenate(found)
    tail = (1 - confidence) / 2
    low, high = np.quantile(taus[np.isfinite(taus)], [tail, 1 - tail])
    return float(low), float(high)


def _taus(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Return τ-b from the signs of all differences, shapes (resamples, groups, groups)."""
    agreeing = (first * second).sum(axis=(1, 2))
    untied = np.abs(first).sum(axis=(1, 2)) * np.abs(second).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = agreeing / np.sqrt(untied)
    return found
