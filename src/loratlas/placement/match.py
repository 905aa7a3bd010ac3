"""Which ranks make a placement cost a given number of parameters, as nearly as ranks allow."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import PlacementError
from loratlas.placement.placement import Adapter, LoraSpec, Placement, place
from loratlas.placement.rules import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A placement whose ranks were chosen for a parameter count, and how near they come.

    Attributes:
        placement: the placement with the chosen ranks.
        target: the parameters that were asked for.
    """

    placement: Placement
    target: int

    @property
    def difference(self) -> int:
        """Trainable parameters above (positive) or below (negative) the target."""
        return self.placement.trainable_parameters - self.target

    @property
    def percent(self) -> float:
        """The difference in percent of the target."""
        return 100 * self.difference / self.target


def match_parameters(
    rule: Source,
    anatomy: Anatomy,
    target: int,
    *,
    lora: LoraSpec,
    root: Path | None = None,
) -> Match:
    """Place a rule with ranks whose trainable parameters come nearest to a target.

    The ranks of the rule keep their ratio: all are multiplied by one number, rounded half up,
    and at least 1. A rule without ranks gets one rank everywhere. Of two totals equally near,
    the smaller is taken.

    Args:
        rule: as for `place`.
        anatomy: the model.
        target: number of trainable parameters.
        lora: rank of a part without one, and how alphas follow the new ranks.
        root: where relative paths in ``file(...)`` start.

    Raises:
        RuleError: the rule cannot be read.
        PlacementError: the rule does not fit the model, or the target is not positive.
    """
    start = place(anatomy, rule, rank=lora.rank, alpha=lora.alpha, scaling=lora.scaling, root=root)
    return match_placement(start, target, lora)


def match_placement(placement: Placement, target: int, lora: LoraSpec) -> Match:
    """Scale the ranks of a placement to come nearest to a target; see `match_parameters`."""
    if target < 1:
        raise PlacementError(f"a parameter target is positive, not {target}")
    multiplier = _nearest_multiplier(placement, target)
    ranks = [_scaled(adapter.rank, multiplier) for adapter in placement.adapters]
    adapters = tuple(
        Adapter(site=adapter.site, rank=rank, alpha=lora.alpha_at(rank))
        for adapter, rank in zip(placement.adapters, ranks, strict=True)
    )
    matched = Placement(anatomy=placement.anatomy, adapters=adapters, scaling=placement.scaling)
    return Match(placement=matched, target=target)


def _nearest_multiplier(placement: Placement, target: int) -> Fraction:
    """Return the multiplier with the total nearest to the target.

    The total is a step function of the multiplier m that never falls: it jumps where some
    rank r times m passes a half, at m = (2k + 1) / 2r. Two different jumps lie at least
    1 / (2 R^2) apart, R being the largest rank, so once a bracket around the target is
    narrower than that, its two ends stand on neighbouring steps.
    """
    cost: Counter[int] = Counter()
    for adapter in placement.adapters:
        cost[adapter.rank] += adapter.site.parameters_per_rank
    low, high = Fraction(0), Fraction(1)
    while _total(cost, high) <= target:
        high *= 2
    if _total(cost, low) >= target:
        return low
    width = Fraction(1, 2 * max(cost) ** 2)
    while high - low >= width:
        middle = (low + high) / 2
        low, high = (middle, high) if _total(cost, middle) <= target else (low, middle)
    below, above = target - _total(cost, low), _total(cost, high) - target
    return low if below <= above else high


def _total(cost: Mapping[int, int], multiplier: Fraction) -> int:
    return sum(per_rank * _scaled(rank, multiplier) for rank, per_rank in cost.items())


def _scaled(rank: int, multiplier: Fraction) -> int:
    """Return rank * multiplier, rounded half up, and at least 1."""
    return max(1, int(rank * multiplier + Fraction(1, 2)))
