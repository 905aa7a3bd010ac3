"""Which placements does a budget allow?

Parameters, memory and time are compared as they stand. A limit on the loss is another matter:
the increase over the baseline is an estimate, so a placement is allowed only where it is *shown*
to stay within the limit (one-sided, 5% over all placements by Holm; new seeds and new examples).
The baseline itself needs no showing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loratlas.analysis.arms import Arms
from loratlas.analysis.components import Counts
from loratlas.analysis.contrasts import Arm, combined, pair
from loratlas.analysis.costs import Cost
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.margins import margin
from loratlas.analysis.multiplicity import holm
from loratlas.analysis.p_values import p_in_words
from loratlas.analysis.power import ALPHA
from loratlas.analysis.verdicts import general

Standing = Literal["allowed", "over the budget", "loss not shown", "set aside"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossLimit:
    """How much higher than the baseline's a loss may be.

    Attributes:
        amount: nats per token, or a share of the baseline's gain over the untuned base.
        is_share: which of the two.
    """

    amount: float
    is_share: bool

    def __str__(self) -> str:
        if self.is_share:
            return f"{self.amount * 100:.4g}% of the baseline's gain"
        return f"{self.amount:.4g} nats per token"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What may be spent; None where nothing is said.

    Attributes:
        parameters: trainable parameters.
        memory_bytes: peak of a training step above the loaded model.
        seconds: of one trial's optimiser steps.
        loss: increase over the baseline.
    """

    parameters: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    loss: LossLimit | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """Where one placement stands against a budget.

    Attributes:
        standing: ``allowed``; ``over the budget``; ``loss not shown`` to keep to the limit;
            ``set aside``, because its trials cannot speak for it.
        reasons: why not, in sentences.
        excess: the largest of its figures over their limits; None where one is unknown, or
            it is set aside.
        increase: how far its loss lies above the limit; below zero, it is inside. None
            without a limit, for the baseline, and where it cannot be told.
        level: at which that is tested one-sided, Holm's first step.
    """

    standing: Standing
    reasons: tuple[str, ...] = ()
    excess: float | None = None
    increase: Estimate | None = None
    level: float = ALPHA


def allowed(
    arms: Arms, costs: Mapping[str, Cost], budget: Budget, *, alpha: float = ALPHA
) -> dict[str, Allowed]:
    """Hold every placement against a budget.

    Args:
        arms: what was scored.
        costs: what each placement costs, and how its trials went.
        budget: what may be spent.
        alpha: level of the tests against the limit on the loss, over all placements.
    """
    found = {name: _first(arm, costs[name], budget) for name, arm in arms.by_name.items()}
    if budget.loss is None:
        return found
    left = [name for name, each in found.items() if each.standing == "allowed"]
    return found | _within_loss(arms, left, budget.loss, alpha, found)


def _first(arm: Arm, cost: Cost, budget: Budget) -> Allowed:
    """Judge all but the loss."""
    unfit = tuple(_unfit(arm, cost))
    if unfit:
        return Allowed(standing="set aside", reasons=unfit)
    ratios = list(_ratios(cost, budget))
    over = tuple(said for ratio, said in ratios if ratio is None or ratio > 1)
    known = [ratio for ratio, _ in ratios if ratio is not None]
    excess = max(known, default=1.0) if len(known) == len(ratios) else None
    return Allowed(standing="over the budget" if over else "allowed", reasons=over, excess=excess)


def _unfit(arm: Arm, cost: Cost) -> Iterator[str]:
    """Say why the trials of a placement cannot speak for it."""
    if cost.num_failed:
        yield f"{cost.num_failed} of {cost.num_trials} trials diverged or failed."
    elif not arm.seeds and cost.num_trials:
        yield "Its trials were imported without a loss on test rows."
    elif not arm.seeds:
        yield "No trial at a chosen learning rate has ended."
    elif not arm.nll.size:
        yield "No example was scored."
    elif not np.isfinite(arm.nll).all():
        yield f"{np.count_nonzero(~np.isfinite(arm.nll))} of {arm.nll.size} scores are no numbers."


def _ratios(cost: Cost, budget: Budget) -> Iterator[tuple[float | None, str]]:
    """Yield each limit's figure over it, and what is to be said where that is above 1."""
    limits: list[tuple[str, float | None, float | None]] = [
        ("{:,} parameters", cost.parameters, budget.parameters),
        ("{:,.4g} MiB of memory", _mebibytes(cost.memory_bytes), _mebibytes(budget.memory_bytes)),
        ("{:,.4g} seconds a trial", cost.seconds, budget.seconds),
    ]
    for form, has, limit in limits:
        if limit is not None and has is None:
            yield None, f"What it takes is not known; allowed: {form.format(limit)}."
        elif limit is not None and has is not None:
            yield has / limit, f"It takes {form.format(has)}; allowed: {form.format(limit)}."


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else size / 2**20


def _within_loss(
    arms: Arms,
    names: Sequence[str],
    limit: LossLimit,
    alpha: float,
    found: Mapping[str, Allowed],
) -> dict[str, Allowed]:
    tested = [name for name in names if name != arms.baseline]
    over = {name: _over_limit(arms, arms.by_name[name], limit) for name in tested}
    ps = holm([each.p_less if each and general(each) else None for each in over.values()])
    level = alpha / max(1, sum(p is not None for p in ps))
    judged = {}
    for name, p in zip(tested, ps, strict=True):
        shown = p is not None and p <= alpha
        judged[name] = Allowed(
            standing="allowed" if shown else "loss not shown",
            reasons=() if shown else (_not_shown(over[name], limit, p),),
            excess=found[name].excess,
            increase=over[name],
            level=level,
        )
    return judged


def _not_shown(over: Estimate | None, limit: LossLimit, p: float | None) -> str:
    if over is None or over.value is None:
        return f"Its increase of loss cannot be held against {limit}."
    side = "below" if over.value < 0 else "above"
    tested = "which cannot be tested" if p is None else p_in_words(p)
    return (
        f"Not shown to raise the loss by less than {limit}: "
        f"{abs(over.value):.4g} nats per token {side} that limit, {tested}."
    )


def _over_limit(arms: Arms, arm: Arm, limit: LossLimit) -> Estimate | None:
    baseline = arms.baseline_arm
    if baseline is None:
        return None
    if limit.is_share:
        return margin(arm, baseline, arms.base_nll, arms.num_tokens, limit.amount).above
    return _beyond(arm, baseline, arms.num_tokens, limit.amount)


def _beyond(arm: Arm, baseline: Arm, num_tokens: Counts, nats: float) -> Estimate:
    """Return how far a loss lies above the baseline's plus so many nats per token."""
    both = pair(arm, baseline)
    return estimate(
        combined((1, both.ours), (-1, both.theirs), (-nats, num_tokens.astype(np.float64))),
        num_tokens,
    )
