"""How much better or worse is one placement than another?

The difference of their corpus losses, paired by seed and by example: seed s of one is held against
seed s of the other, and both score the same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.intervals import CONFIDENCE
from loratlas.analysis.sign_flip import SignFlip, sign_flip


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A placement's scores at its chosen learning rate.

    Attributes:
        name: its key in the study file.
        seeds: seeds whose trial ended.
        nll: sum over scored tokens of -ln p for each example, nats, shape (seeds, examples);
            its rows in the order of `seeds`, its columns the same rows of data in every arm.
            An arm without a trial that ended has shape (0, examples).

    Raises:
        ValueError: the shape does not fit the seeds, or a seed stands twice.
    """

    name: str
    seeds: tuple[int, ...]
    nll: Floats

    def __post_init__(self) -> None:
        if self.nll.ndim != 2 or len(self.nll) != len(self.seeds):
            raise ValueError(
                f"{self.name}: scores of shape {self.nll.shape} for {len(self.seeds)} seeds; "
                f"expected (seeds, examples)"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"{self.name}: a seed stands twice in {list(self.seeds)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """What one placement gives beyond another.

    Attributes:
        placement: whose loss it is.
        baseline: what it is held against, None where the study names none.
        seeds: seeds that both have, in ascending order.
        estimate: the difference of corpus losses; below zero, the placement is better.
        sign_flip: exact check over seeds, None where there is no difference.
        says: seeds that were left out, and what cannot be said.
    """

    placement: str
    baseline: str | None
    seeds: tuple[int, ...]
    estimate: Estimate
    sign_flip: SignFlip | None
    says: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two arms brought together on the seeds that both have.

    Attributes:
        seeds: those seeds, in ascending order.
        ours: nats of the placement, shape (seeds, examples).
        theirs: nats of what it is held against, same shape.
        left_out: which seeds were left out, in sentences.
        unusable: which scores are no numbers, in sentences.
    """

    seeds: tuple[int, ...]
    ours: Floats
    theirs: Floats
    left_out: tuple[str, ...]
    unusable: tuple[str, ...]


def pair(ours: Arm, theirs: Arm) -> Pair:
    """Bring two arms together on the seeds that both have.

    Raises:
        ValueError: they did not score the same number of examples.
    """
    if ours.nll.shape[1] != theirs.nll.shape[1]:
        raise ValueError(
            f"{ours.name} scored {ours.nll.shape[1]} examples, {theirs.name} "
            f"{theirs.nll.shape[1]}; a contrast needs the same ones"
        )
    seeds = tuple(sorted(set(ours.seeds) & set(theirs.seeds)))
    scores = [arm.nll[[arm.seeds.index(seed) for seed in seeds]] for arm in (ours, theirs)]
    return Pair(
        seeds=seeds,
        ours=scores[0],
        theirs=scores[1],
        left_out=(*_unpaired(ours, theirs), *_unpaired(theirs, ours)),
        unusable=(
            *_no_numbers(ours.name, seeds, scores[0]),
            *_no_numbers(theirs.name, seeds, scores[1]),
        ),
    )


def contrast(
    ours: Arm,
    theirs: Arm,
    num_tokens: Counts,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Contrast:
    """Hold one placement against another.

    Args:
        ours: the placement.
        theirs: what it is held against.
        num_tokens: scored tokens, the same for both, shape (examples,).
        confidence: coverage of the interval.
        seed: of what is drawn at random: the bootstrap of one seed, signs of many seeds.
    """
    both = pair(ours, theirs)
    found = estimate(
        combined((1, both.ours), (-1, both.theirs)), num_tokens, confidence=confidence, seed=seed
    )
    return Contrast(
        placement=ours.name,
        baseline=theirs.name,
        seeds=both.seeds,
        estimate=found,
        sign_flip=sign_flip(np.array(found.per_seed), seed=seed),
        says=(*both.left_out, *(both.unusable or found.says)),
    )


def combined(*terms: tuple[float, Floats]) -> Floats:
    """Return a weighted sum of scores; what is no number in one of them stays none, quietly."""
    total: Floats = np.zeros(())
    with np.errstate(invalid="ignore", over="ignore"):
        for weight, scores in terms:
            total = total + weight * scores
    return total


def _unpaired(one: Arm, other: Arm) -> Iterator[str]:
    alone = sorted(set(one.seeds) - set(other.seeds))
    if alone:
        which = f"seed{'s' if len(alone) > 1 else ''} {', '.join(map(str, alone))}"
        yield f"Left out: {which} of {one.name}, which {other.name} does not have."


def _no_numbers(name: str, seeds: tuple[int, ...], nll: Floats) -> Iterator[str]:
    wrong = np.count_nonzero(~np.isfinite(nll), axis=1)
    for seed, count in zip(seeds, wrong.tolist(), strict=True):
        if count:
            yield f"Seed {seed} of {name}: {count} of {nll.shape[1]} scores are no numbers."
