"""Which placements may have the lowest loss, and which lie surely near it?

Two questions about *the best*, which is itself not known. Whoever picks the placement with the
lowest loss and then tests the others against it tests against the luckiest: with eight equal
placements it is told from some other far too often. So no test here knows which came out best.

*May it be the best?* A placement is held against each of the k - 1 others. It is ruled out where
its loss is shown to be above that of another, at a level of 5% / (k - 1) one-sided (Bonferroni).
The best is then ruled out in at most 5% of studies, whichever it is: a confidence set for it
(S. S. Gupta, On some multiple decision rules, 1965; J. C. Hsu, Multiple Comparisons, 1996,
chapter 4).

*Does it lie near the best?* It is shown to lie less than a tolerance above *every* other, each at
the full level: all of the tests must reject, so that their largest p is the p of "it lies the
tolerance or more above the best" (R. L. Berger 1982). Holm's correction is taken over placements.

Each test is the paired one of `loratlas.analysis.contrasts`: it captures new seeds and new
examples. Placements with fewer than two common seeds cannot be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm, combined, pair
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.margins import margin
from loratlas.analysis.multiplicity import holm
from loratlas.analysis.power import ALPHA
from loratlas.analysis.verdicts import general


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """Every placement held against every other; losses in nats per token.

    Attributes:
        losses: mean over the seeds that all of them have; their own where they share none.
        level: of each one-sided test: alpha / (k - 1).
        estimates: loss of the first less that of the second, by both names, in either order;
            each end of an interval is at `level`.
    """

    losses: Mapping[str, float]
    level: float
    estimates: Mapping[tuple[str, str], Estimate]

    @property
    def any_told(self) -> bool:
        """Whether some pair can be compared, or all give the very same scores."""
        found = self.estimates.values()
        return any(general(each) for each in found) or all(each.value == 0 for each in found)

    @property
    def leader(self) -> str:
        """The placement with the lowest loss of this sample, the first of a tie."""
        return min(self.losses, key=lambda name: self.losses[name])

    @property
    def may_be_best(self) -> tuple[str, ...]:
        """Placements that are not shown to have a higher loss than another."""
        return tuple(
            name for name in self.losses if name == self.leader or not self.ruled_out_by(name)
        )

    def ruled_out_by(self, name: str) -> tuple[str, ...]:
        """Return the placements that are shown to have a lower loss than this one."""
        return tuple(other for other in self.losses if other != name and self.above(name, other))

    def above(self, name: str, other: str) -> bool:
        """Return whether the loss of the first is shown to be above that of the second."""
        found = self.estimates[name, other]
        return general(found) and found.p_greater is not None and found.p_greater <= self.level

    def told_apart(self, name: str, other: str) -> bool:
        """Return whether two placements are shown to differ, one way or the other."""
        return self.above(name, other) or self.above(other, name)

    def p_above(self, name: str) -> float | None:
        """Return p of "no other has a lower loss", adjusted over the others; None if untested."""
        others = [self.estimates[name, other] for other in self.losses if other != name]
        tested = [found.p_greater for found in others if general(found)]
        known = [p for p in tested if p is not None]
        return min(1.0, len(others) * min(known)) if known else None


def rivals(arms: Sequence[Arm], num_tokens: Counts, *, alpha: float = ALPHA) -> Rivals:
    """Hold every placement against every other.

    Args:
        arms: placements with at least one seed each.
        num_tokens: scored tokens, the same for all, shape (examples,).
        alpha: how often the best may be ruled out by chance.

    Raises:
        ValueError: a placement has no seed.
    """
    if any(not arm.seeds for arm in arms):
        raise ValueError("a placement without a seed has no loss to compare")
    level = alpha / max(1, len(arms) - 1)
    found: dict[tuple[str, str], Estimate] = {}
    for one, other in combinations(arms, 2):
        forward = _difference(one, other, num_tokens, 1 - 2 * level)
        found[one.name, other.name] = forward
        found[other.name, one.name] = _turned(forward)
    return Rivals(losses=_losses(arms, num_tokens), level=level, estimates=found)


def near_best(
    arms: Sequence[Arm],
    baseline: Arm | None,
    base_nll: Floats | None,
    num_tokens: Counts,
    share: float,
    *,
    alpha: float = ALPHA,
) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Test which placements lie less than a tolerance above the best of them.

    Args:
        arms: the placements.
        baseline: whose gain over the untuned base the tolerance is a share of.
        base_nll: nats that the untuned base gives each example, shape (examples,).
        num_tokens: scored tokens, shape (examples,).
        share: the tolerance, above 0 and below 1.
        alpha: level at which the gain must differ from none.

    Returns:
        p of "it lies the tolerance or more above the best" by name, adjusted over placements,
        None where it was not tested; and why there is no tolerance, in sentences.
    """
    if baseline is None:
        said = "The baseline has no scores: there is no gain to measure a tolerance by."
        return dict.fromkeys(arm.name for arm in arms), (said,)
    gain = margin(baseline, baseline, base_nll, num_tokens, share, alpha=alpha)
    if base_nll is None or gain.width is None or not general(gain.gain):
        return dict.fromkeys(arm.name for arm in arms), gain.says
    worst = [_farthest(arm, arms, baseline, base_nll, num_tokens, share) for arm in arms]
    return dict(zip((arm.name for arm in arms), holm(worst), strict=True)), ()


def _farthest(
    arm: Arm,
    arms: Sequence[Arm],
    baseline: Arm,
    base_nll: Floats,
    num_tokens: Counts,
    share: float,
) -> float | None:
    """Return the largest p of "this lies the tolerance or more above that", over all others."""
    found = []
    for other in arms:
        if other.name != arm.name:
            seeds, (ours, theirs, measure) = together(arm, other, baseline)
            if len(seeds) < 2:
                return None
            excess = combined((1, ours), (-1, theirs), (share, measure), (-share, base_nll))
            tested = estimate(excess, num_tokens)
            if not general(tested) or tested.p_less is None:
                return None
            found.append(tested.p_less)
    return max(found, default=None)


def together(*arms: Arm) -> tuple[tuple[int, ...], tuple[Floats, ...]]:
    """Return the seeds that all placements have, ascending, and each one's scores for them."""
    seeds = tuple(sorted(set.intersection(*(set(arm.seeds) for arm in arms))))
    return seeds, tuple(arm.nll[[arm.seeds.index(seed) for seed in seeds]] for arm in arms)


def _difference(one: Arm, other: Arm, num_tokens: Counts, confidence: float) -> Estimate:
    both = pair(one, other)
    sums = combined((1, both.ours), (-1, both.theirs))
    if len(both.seeds) > 1:
        return estimate(sums, num_tokens, confidence=confidence)
    # One seed says nothing of others; a bootstrap of it would be work for nothing.
    value = None
    if both.seeds and not both.unusable and num_tokens.sum():
        value = float(sums.sum() / num_tokens.sum())
    said = f"{one.name} and {other.name} have {len(both.seeds)} seeds in common; two are needed."
    return Estimate(
        value=value,
        per_seed=() if value is None else (value,),
        num_seeds=len(both.seeds),
        num_examples=int(np.count_nonzero(num_tokens)),
        says=(*both.unusable, said),
    )


def _turned(found: Estimate) -> Estimate:
    """Return the estimate of the second less the first."""
    return replace(
        found,
        value=None if found.value is None else 0.0 - found.value,
        interval=found.interval and (-found.interval[1], -found.interval[0]),
        p_less=found.p_greater,
        p_greater=found.p_less,
        per_seed=tuple(0.0 - value for value in found.per_seed),
    )


def _losses(arms: Sequence[Arm], num_tokens: Counts) -> dict[str, float]:
    seeds, scores = together(*arms) if arms else ((), ())
    if not seeds:
        scores = tuple(arm.nll for arm in arms)
    total = float(num_tokens.sum())
    return {
        arm.name: float(nll.sum() / len(nll) / total) for arm, nll in zip(arms, scores, strict=True)
    }
