"""Which placement should a person take, how sure is that, and would more seeds settle it?

Of the placements that a budget allows, some *may be the best* and some are *shown to be near the
best* (`loratlas.analysis.rivals`). A preset says which of them will do, and of those the cheapest
is recommended:

============================  ===================================================================
``performance-critical``      the lowest loss. A cheaper placement takes its place only where it
                              may be the best *and* is shown to lie within the study's margin
                              of the best.
``balanced``                  the cheapest of those that may be the best, or are shown to lie
                              within the study's margin of it.
``resource-constrained``      the cheapest of those that may be the best, or are shown to lie
                              within a quarter of the baseline's gain of it. With a limit on the
                              loss, the cheapest that keeps to the limit.
============================  ===================================================================

So "cannot be told apart" favours the cheaper one, except where performance is critical: there the
absence of evidence is no evidence. Where no two placements can be compared at all, none is
recommended.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from loratlas.analysis.arms import Arms
from loratlas.analysis.budget import Allowed, Budget, allowed
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.costs import Cost, cheapest
from loratlas.analysis.estimates import Estimate
from loratlas.analysis.more_seeds import MoreSeeds, more_seeds
from loratlas.analysis.power import ALPHA
from loratlas.analysis.rivals import Rivals, near_best, rivals
from loratlas.analysis.verdicts import MARGIN, general

Preset = Literal["resource-constrained", "balanced", "performance-critical"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Verdict = Literal[
    "best",
    "lowest loss",
    "cheapest that will do",
    "only one allowed",
    "cannot tell",
    "none allowed",
]
RESOURCE_TOLERANCE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """A comparison that is open, and what would settle it.

    Attributes:
        placement: the cheaper one, or the one that is held against the limit on the loss.
        rival: the one with the lower loss; None for the limit.
        difference: loss of the placement less the rival's, or less the limit, nats per token.
        needed: the seeds that it takes.
    """

    placement: str
    rival: str | None
    difference: Estimate
    needed: MoreSeeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """One placement, and what speaks for it.

    Attributes:
        placement: the one; None where none is allowed, or none can be told from another.
        verdict: ``best``: shown to have the lowest loss; ``lowest loss``: it has, and another
            may be better; ``cheapest that will do``; ``only one allowed``; ``cannot tell``;
            ``none allowed``.
        preset: the rule that chose.
        budget: what was allowed.
        standings: every placement against the budget, in the order of the study.
        costs: what each costs.
        losses: mean over the seeds of each, nats per token; None where it is not known.
        rivals: those that are allowed, held against each other; None where there is none.
        p_not_near: p of "it lies the tolerance or more above the best", adjusted; empty where
            nothing was asked.
        tolerance: as a share of the baseline's gain, None where the preset needs none.
        acceptable: those of which the cheapest was taken, in the order of the study.
        nearest: the placement that exceeds the budget least, where none is allowed.
        contests: what is open, and whether more seeds could settle it.
        says: why there is no tolerance, and other things that cannot be said.
    """

    placement: str | None
    verdict: Verdict
    preset: Preset
    budget: Budget
    standings: Mapping[str, Allowed]
    costs: Mapping[str, Cost]
    losses: Mapping[str, float | None]
    rivals: Rivals | None = None
    p_not_near: Mapping[str, float | None] = field(default_factory=dict)
    tolerance: float | None = None
    acceptable: tuple[str, ...] = ()
    nearest: str | None = None
    contests: tuple[Contest, ...] = ()
    says: tuple[str, ...] = ()

    @property
    def indistinguishable(self) -> tuple[str, ...]:
        """Allowed placements whose loss cannot be told from that of the recommended one."""
        if self.placement is None or self.rivals is None:
            return ()
        return tuple(
            name
            for name in self.rivals.losses
            if name != self.placement and not self.rivals.told_apart(name, self.placement)
        )

    @property
    def more_seeds(self) -> int | None:
        """The fewest more seeds that would settle one of the contests, None where none would."""
        counts = [contest.needed.more for contest in self.contests]
        return min((count for count in counts if count is not None), default=None)


def recommend(
    arms: Arms,
    costs: Mapping[str, Cost],
    *,
    budget: Budget | None = None,
    preset: Preset = "balanced",
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> Recommendation:
    """Choose one placement of a run.

    Args:
        arms: what was scored.
        costs: what each placement costs, and how its trials went.
        budget: what may be spent; None allows everything.
        preset: which of the placements will do.
        margin: what does not matter, as a share of the baseline's gain.
        alpha: how often the best may be ruled out, and how often a placement may be called
            near the best, or within the limit on the loss, that is not.
    """
    budget = budget or Budget()
    found = allowed(arms, costs, budget, alpha=alpha)
    fit = [arms.by_name[name] for name, each in found.items() if each.standing == "allowed"]
    left, standings = _comparable(fit, found)
    asked = _Asked(arms, costs, budget, preset, margin, alpha, standings)
    if not left:
        return _none_allowed(asked)
    return _chosen(asked, left)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a recommendation is made from."""

    arms: Arms
    costs: Mapping[str, Cost]
    budget: Budget
    preset: Preset
    margin: float
    alpha: float
    standings: Mapping[str, Allowed]


def _comparable(
    left: Sequence[Arm], standings: Mapping[str, Allowed]
) -> tuple[list[Arm], Mapping[str, Allowed]]:
    """Set aside placements of one seed where others have more: nothing could rule them out."""
    most = max((len(arm.seeds) for arm in left), default=0)
    few = [arm.name for arm in left if len(arm.seeds) == 1 < most]
    said = "One seed, where others have more: it cannot be held against them."
    aside = {name: Allowed(standing="set aside", reasons=(said,)) for name in few}
    return [arm for arm in left if arm.name not in aside], {**standings, **aside}


def _none_allowed(asked: _Asked) -> Recommendation:
    return Recommendation(
        placement=None,
        verdict="none allowed",
        preset=asked.preset,
        budget=asked.budget,
        standings=asked.standings,
        costs=asked.costs,
        losses=_losses(asked.arms),
        nearest=_nearest(asked.standings),
        contests=tuple(_open_limits(asked, None)),
    )


def _nearest(standings: Mapping[str, Allowed]) -> str | None:
    """Return the placement that exceeds what is allowed by the smallest factor."""
    order = {
        name: (max(1.0, each.excess), (each.increase and each.increase.value) or 0.0)
        for name, each in standings.items()
        if each.excess is not None
    }
    return min(order, key=lambda name: order[name]) if order else None


def _chosen(asked: _Asked, left: Sequence[Arm]) -> Recommendation:
    arms, tolerance = asked.arms, _tolerance(asked)
    held = rivals(left, arms.num_tokens, alpha=asked.alpha)
    near: Mapping[str, float | None] = {}
    says: tuple[str, ...] = ()
    if tolerance is not None and len(left) > 1 and held.any_told:
        near, says = near_best(
            left, arms.baseline_arm, arms.base_nll, arms.num_tokens, tolerance, alpha=asked.alpha
        )
    acceptable = _acceptable(asked, held, near) if held.any_told else ()
    one = _cheapest(acceptable, asked.costs, held) if acceptable else None
    return Recommendation(
        placement=one,
        verdict=_verdict(asked, held, one),
        preset=asked.preset,
        budget=asked.budget,
        standings=asked.standings,
        costs=asked.costs,
        losses=_losses(asked.arms),
        rivals=held,
        p_not_near=near,
        tolerance=tolerance,
        acceptable=acceptable,
        contests=(*_rivalry(asked, held, near, one), *_open_limits(asked, one)),
        says=says,
    )


def _losses(arms: Arms) -> dict[str, float | None]:
    losses: dict[str, float | None] = {}
    for name, arm in arms.by_name.items():
        known = arm.nll.size and np.isfinite(arm.nll).all() and arms.num_tokens.sum()
        losses[name] = float(arm.nll.sum(axis=1).mean() / arms.num_tokens.sum()) if known else None
    return losses


def _tolerance(asked: _Asked) -> float | None:
    if asked.preset != "resource-constrained":
        return asked.margin
    return None if asked.budget.loss else max(RESOURCE_TOLERANCE, asked.margin)


def _acceptable(asked: _Asked, held: Rivals, near: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return the placements that will do, in the order of the study."""
    best = set(held.may_be_best)
    within = {name for name, p in near.items() if p is not None and p <= asked.alpha}
    if asked.preset == "performance-critical":
        will_do = {held.leader} | (best & within)
    elif asked.preset == "resource-constrained" and asked.budget.loss:
        will_do = set(held.losses)
    else:
        will_do = best | within
    return tuple(name for name in held.losses if name in will_do)


def _cheapest(names: Collection[str], costs: Mapping[str, Cost], held: Rivals) -> str:
    """Return the cheapest; of those that cost the same, the one with the lowest loss."""
    return min(cheapest(names, costs), key=lambda name: held.losses[name])


def _verdict(asked: _Asked, held: Rivals, one: str | None) -> Verdict:
    if one is None:
        return "cannot tell"
    if len(held.losses) == 1:
        return "only one allowed"
    if held.may_be_best == (one,):
        return "best"
    if asked.preset == "performance-critical" and one == held.leader:
        return "lowest loss"
    return "cheapest that will do"


def _rivalry(
    asked: _Asked, held: Rivals, near: Mapping[str, float | None], one: str | None
) -> Iterator[Contest]:
    """Yield the comparison that decides between cheap and good, where it is open."""
    cheap = _cheapest(held.may_be_best, asked.costs, held)
    settled = (p := near.get(cheap)) is not None and p <= asked.alpha
    if one in (cheap, held.leader) and cheap != held.leader and not settled:
        found = held.estimates[cheap, held.leader]
        needed = more_seeds(found, held.level)
        yield Contest(placement=cheap, rival=held.leader, difference=found, needed=needed)


def _open_limits(asked: _Asked, one: str | None) -> Iterator[Contest]:
    """Yield the placements that more seeds might show to keep to the limit on the loss."""
    for name, each in asked.standings.items():
        found = each.increase
        cheaper = one is None or one not in cheapest((name, one), asked.costs)
        if not cheaper or found is None or each.standing != "loss not shown":
            continue
        if general(found) and found.value is not None and found.value < 0:
            needed = more_seeds(found, each.level)
            yield Contest(placement=name, rival=None, difference=found, needed=needed)
