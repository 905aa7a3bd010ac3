"""Which placements are not beaten on everything at once, and how sure is that?

A placement is *on the frontier* unless another is at least as good in every objective and better
in one; placements that are equal in all of them are on it together. The losses are estimates, so
the frontier is one too: a placement's *probability* is the share of draws of the uncertain figures
(`loratlas.analysis.objectives`) in which it is on it.

The hypervolume is the volume that the frontier dominates, up to a reference point (E. Zitzler and
L. Thiele 1998; computed by ``moocore``). It has the product of the objectives' units, so it is
also given as a share of the box between the best of each objective and the reference point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from loratlas.analysis.arms import Arms
from loratlas.analysis.components import Floats
from loratlas.analysis.costs import Cost
from loratlas.analysis.objectives import Figures, Objective, check_objectives, figures
from loratlas.errors import RequestError

NUM_DRAWS = 4_000
# The reference point lies this share of an objective's range beyond its worst figure, so that
# the worst placement of one objective still adds something.
_BEYOND = 0.1
_BATCH_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A placement as it lies in the space of the objectives.

    Attributes:
        placement: its name.
        values: its figures, in the order of the objectives and in their own units and
            direction: accuracy is better when higher, all others when lower.
        on_frontier: whether it is on the frontier of these figures.
        probability: that it is on the frontier; None where the scores have no uncertainty that
            could be known.
    """

    placement: str
    values: tuple[float, ...]
    on_frontier: bool
    probability: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The placements of a run as a trade between objectives.

    Attributes:
        objectives: two or three of them.
        points: placements whose every figure is known, in the order of the study.
        seeds: those that losses and accuracies rest on; every point has them all.
        reference: point up to which the volume is taken, in the objectives' units; empty
            without a point.
        hypervolume: in the product of their units; None without a point.
        share: of the box between the best of each objective and the reference; None where that
            box is empty.
        left_out: placements that are no points, and why.
        says: what the probabilities do not capture, or why there are none.
    """

    objectives: tuple[Objective, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    reference: tuple[float, ...]
    hypervolume: float | None
    share: float | None
    left_out: Mapping[str, str]
    says: tuple[str, ...]


def frontier(
    arms: Arms,
    costs: Mapping[str, Cost],
    objectives: Sequence[str] = ("loss", "parameters"),
    *,
    reference: Sequence[float] | None = None,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> Frontier:
    """Find the frontier of a run.

    Args:
        arms: what was scored.
        costs: what each placement costs.
        objectives: two or three different ones of `loratlas.analysis.objectives.OBJECTIVES`.
        reference: the point up to which the hypervolume is taken, a figure an objective, in its
            own unit; by default a tenth of the range beyond the worst figure of each.
        seed: of the draws.
        num_draws: how many there are; with 4,000 a probability is off by at most 1.6% (two
            standard errors).

    Raises:
        RequestError: there are not two or three different objectives, one is unknown, or the
            reference point does not fit them.
    """
    asked = check_objectives(objectives)
    if reference is not None and (
        len(reference) != len(asked) or not np.isfinite(np.array(reference)).all()
    ):
        raise RequestError(f"a reference point is {len(asked)} numbers here, not {list(reference)}")
    found = figures(arms, costs, asked, seed=seed, num_draws=num_draws)
    volume, share, end = _volume(found, reference)
    return Frontier(
        objectives=asked,
        points=tuple(_points(found)),
        seeds=found.seeds,
        reference=end,
        hypervolume=volume,
        share=share,
        left_out=found.left_out,
        says=found.says,
    )


def on_frontier(values: Floats) -> NDArray[np.bool_]:
    """Return which points no other dominates; all objectives are to be low.

    Args:
        values: shape (..., points, objectives), without NaN.

    Returns:
        shape (..., points).
    """
    ours, others = values[..., :, None, :], values[..., None, :, :]
    beaten = (others <= ours).all(axis=-1) & (others < ours).any(axis=-1)
    return np.asarray(~beaten.any(axis=-1))


def _points(found: Figures) -> list[Point]:
    chances = [None] * len(found.placements) if found.unsure else _probabilities(found)
    values = (found.signs * found.values).tolist()
    members = on_frontier(found.values).tolist()
    return [
        Point(placement=name, values=tuple(row), on_frontier=member, probability=chance)
        for name, row, member, chance in zip(
            found.placements, values, members, chances, strict=True
        )
    ]


def _probabilities(found: Figures) -> list[float]:
    num_points, num_objectives = found.values.shape
    count = len(next(iter(found.drawn.values()))) if found.drawn else 1
    size = max(1, _BATCH_ELEMENTS // max(1, num_points**2 * num_objectives))
    members = np.zeros(num_points)
    for start in range(0, count, size):
        stop = min(start + size, count)
        sample = np.broadcast_to(found.values, (stop - start, *found.values.shape)).copy()
        for objective, drawn in found.drawn.items():
            sample[..., found.objectives.index(objective)] = drawn[start:stop]
        members += on_frontier(sample).sum(axis=0)
    return [float(each) for each in members / count]


def _volume(
    found: Figures, reference: Sequence[float] | None
) -> tuple[float | None, float | None, tuple[float, ...]]:
    """Return the hypervolume, its share of the box, and the reference point."""
    if not found.placements:
        return None, None, ()
    values = found.values
    end = _beyond(values) if reference is None else found.signs * np.array(reference, dtype=float)
    # Of points beyond the reference the library would warn; they add nothing.
    inside = values[(values < end).all(axis=1)]
    volume = float(moocore.hypervolume(inside, ref=end)) if len(inside) else 0.0
    box = float(np.prod(np.maximum(end - values.min(axis=0), 0)))
    share = volume / box if box > 0 else None
    return volume, share, tuple((found.signs * end).tolist())


def _beyond(values: Floats) -> Floats:
    """Return the worst of each objective and a tenth of its range, or of itself without one."""
    worst, span = values.max(axis=0), np.ptp(values, axis=0)
    size = np.where(span > 0, span, np.where(worst != 0, np.abs(worst), 1.0))
    return np.asarray(worst + _BEYOND * size)
