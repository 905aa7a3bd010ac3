"""Simulated studies whose truth is known, for ``benchmarks/contrasts.py``.

Seeds and examples have crossed effects on a loss per token, examples have token counts that vary,
and a score is a sum over tokens. `Truth.shares` say how much of the variance of a difference comes
from seeds, from examples, and from neither, whatever the numbers of both: more seeds or examples
never turn a truth into an easier one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

# Token counts with a coefficient of variation of 0.75, about that of answers; all equally likely.
TOKENS = np.clip(np.round(np.exp(stats.norm.ppf((np.arange(2000) + 0.5) / 2000, 3.2, 0.7))), 1, 400)
# By how much weights that vary raise the variance of a mean over examples.
_WEIGHTING = float(np.mean(TOKENS**2) / np.mean(TOKENS) ** 2)


def normal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw with variance 1."""
    return chance.standard_normal(shape)


def heavy(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw from Student's t with 4 degrees of freedom, scaled to variance 1."""
    return chance.standard_t(4, shape) / np.sqrt(2)


def skewed(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw from a lognormal of skewness 2.9, centred and scaled to variance 1."""
    power = np.exp(0.49)
    drawn: Floats = np.exp(chance.normal(0, 0.7, shape)) - np.sqrt(power)
    return drawn / np.sqrt(power * (power - 1))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where the variance of a difference comes from, and how it is distributed.

    Attributes:
        name: what to call it.
        shares: of the variance: seeds, examples, rest.
        of_seeds: distribution of a seed's effect.
        of_rows: distribution of an example's effect, and of the rest.
        by_length: effects of examples depend on their length, and short ones vary more.
    """

    name: str
    shares: tuple[float, float, float]
    of_seeds: Draw = normal
    of_rows: Draw = normal
    by_length: bool = False

    @property
    def gaussian(self) -> bool:
        """Whether an interval should be no wider than it needs to be either."""
        return self.of_seeds is normal and self.of_rows is normal and not self.by_length


BALANCED = Truth(name="Gaussian, seeds and examples alike", shares=(0.45, 0.45, 0.1))
SEED_LED = Truth(name="Gaussian, seeds lead", shares=(0.9, 0.05, 0.05))
ROW_LED = Truth(name="Gaussian, examples lead", shares=(0.05, 0.9, 0.05))
THIRDS = Truth(name="Gaussian, thirds", shares=(1 / 3, 1 / 3, 1 / 3))
REST_LED = Truth(name="Gaussian, rest leads", shares=(0.05, 0.05, 0.9))
FEW_ROWS = Truth(name="Gaussian, examples least", shares=(0.7, 0.1, 0.2))
HEAVY = Truth(name="heavy tails", shares=(0.45, 0.45, 0.1), of_seeds=heavy, of_rows=heavy)
SKEWED = Truth(name="skewed examples lead", shares=(0.05, 0.9, 0.05), of_rows=skewed)
UNEQUAL = Truth(name="unequal by length", shares=(0.2, 0.7, 0.1), by_length=True)
SKEWED_SEEDS = Truth(name="skewed seeds lead", shares=(0.9, 0.05, 0.05), of_seeds=skewed)
TRUTHS = (
    BALANCED, SEED_LED, ROW_LED, THIRDS, REST_LED, FEW_ROWS, HEAVY, SKEWED, UNEQUAL, SKEWED_SEEDS
)  # fmt: skip


def tokens(chance: np.random.Generator, studies: int, num_examples: int) -> Floats:
    """Draw token counts, shape (studies, examples)."""
    return TOKENS[chance.integers(len(TOKENS), size=(studies, num_examples))]


def scores(
    truth: Truth, chance: np.random.Generator, lengths: Floats, arms: int, num_seeds: int
) -> Floats:
    """Draw nats around a true corpus loss of 0, with a standard error of 1 per token.

    Args:
        truth: where the variance comes from.
        chance: generator.
        lengths: token counts, shape (studies, examples), which all arms share.
        arms: placements of a study.
        num_seeds: seeds of each.

    Returns:
        nats, shape (studies, arms, seeds, examples).
    """
    studies, num_examples = lengths.shape
    seed, row, rest = np.sqrt(truth.shares) * np.sqrt(
        [num_seeds, num_examples / _WEIGHTING, num_seeds * num_examples / _WEIGHTING]
    )
    of_rows = row * truth.of_rows(chance, (studies, arms, 1, num_examples))
    if truth.by_length:
        of_rows *= np.sqrt(np.mean(TOKENS) / lengths)[:, None, None]
        of_rows += 0.5 * row * centred(np.log, lengths)[:, None, None]
    effects = rest * truth.of_rows(chance, (studies, arms, num_seeds, num_examples))
    effects += seed * truth.of_seeds(chance, (studies, arms, num_seeds, 1))
    effects += of_rows
    effects *= lengths[:, None, None]
    return effects


def centred(function: Callable[[Floats], Floats], lengths: Floats) -> Floats:
    """Return a function of token counts whose true mean over tokens is zero."""
    return function(lengths) - np.mean(TOKENS * function(TOKENS)) / np.mean(TOKENS)
