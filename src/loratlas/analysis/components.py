"""How far may a mean over seeds and examples be off, when both would be drawn again?

Every seed scores the same examples: the two are crossed. Per token, a score is

    mean + effect of the seed + effect of the example + the rest,

and the variance of the mean over S seeds and E examples is

    (seed variance + rest / E) / S  +  example variance / E  =  M_s / (S E)  +  (M_e - M_r) / (S E)

in terms of the mean squares of seeds, examples and the rest (J. Cornfield and J. W. Tukey, Average
values of mean squares in factorials, 1956; S. R. Searle, G. Casella and C. E. McCulloch, Variance
Components, 1992, chapter 4). The first part is what a t interval over seeds uses; the second is
what it leaves out. A corpus loss is a ratio, sum of nats / sum of tokens, so each seed's scores
are first made linear about that seed's ratio (W. G. Cochran, Sampling Techniques, 1977, chapter
6): long examples weigh more.

Three choices are made here, held against simulated studies in ``benchmarks/contrasts.py``.

*Negative components.* A component that comes out negative counts as zero. The variance is never
below that of the seeds' losses alone.

*Degrees of freedom.* F. E. Satterthwaite (1946) takes V² / Σ(V_i² / f_i) over the parts V_i of the
variance V. With few seeds that is too many: seeds that lie close by chance make the variance
small and the degrees of freedom large at once, and with 3 seeds intervals of 95% cover 92%. So
the shares are not squared: V / Σ(V_i / f_i). That is to first order the weighted critical value
of W. G. Cochran and G. M. Cox (Experimental Designs, 1957, section 4.14), and never above
Satterthwaite's.

*Few long examples.* The mean square of examples that weigh as their tokens w rests on fewer than
E of them: on (Σ w²)² / Σ w⁴, Satterthwaite's count for effects per token of one variance. They
lose their E-th part as degrees of freedom, which leaves E - 1 where all are of one length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.float64] | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanSquares:
    """Mean squares of crossed scores, in (nats per token)²; arrays have the shape of the batch.

    Attributes:
        estimate: corpus loss, averaged over seeds, in nats per token.
        seed: between seeds, S - 1 degrees of freedom.
        example: between examples, E - 1 degrees of freedom.
        rest: what neither explains, (S - 1)(E - 1) degrees of freedom.
        num_seeds: S.
        num_examples: E.
        num_effective: examples that the mean square of examples rests on, E where all are of
            one length.
    """

    estimate: Floats
    seed: Floats
    example: Floats
    rest: Floats
    num_seeds: int
    num_examples: int
    num_effective: Floats

    @property
    def seed_variance(self) -> Floats:
        """Variance of a seed's effect on the corpus loss, zero where it comes out negative."""
        return np.maximum(self.seed - self.rest, 0) / self.num_examples

    @property
    def example_variance(self) -> Floats:
        """Variance of an example's effect, weighted by its tokens, zero where negative."""
        return np.maximum(self.example - self.rest, 0) / self.num_seeds

    @property
    def variance(self) -> Floats:
        """Variance of the estimate; captures new seeds and new examples."""
        by_seeds, by_examples = self._parts
        return by_seeds + by_examples

    @property
    def freedom(self) -> Floats:
        """Degrees of freedom of the variance, at least 1, which they are where it is zero."""
        by_seeds, by_examples = self._parts
        of_examples = self.num_effective * (1 - 1 / self.num_examples)
        slack = by_seeds / (self.num_seeds - 1) + by_examples / np.maximum(of_examples, 1)
        return np.divide(by_seeds + by_examples, slack, out=np.ones_like(slack), where=slack > 0)

    @property
    def _parts(self) -> tuple[Floats, Floats]:
        """Variance of the mean over seeds on these examples, and what other examples add."""
        by_seeds = self.seed / (self.num_seeds * self.num_examples)
        return by_seeds, self.example_variance / self.num_examples


def corpus_losses(sums: Floats, num_tokens: Floats) -> Floats:
    """Return Σ nats / Σ tokens of each seed.

    Args:
        sums: nats of each example, shape (..., seeds, examples).
        num_tokens: scored tokens, shape (..., examples), of a positive total.

    Returns:
        nats per token, shape (..., seeds).
    """
    return np.asarray(sums.sum(axis=-1) / num_tokens.sum(axis=-1)[..., None])


def mean_squares(sums: Floats, num_tokens: Floats) -> MeanSquares:
    """Return the mean squares of crossed scores.

    Args:
        sums: nats of each example under each seed, or a difference of such, shape
            (..., seeds, examples) with at least two of each.
        num_tokens: scored tokens, shape (..., examples), of a positive total.

    Returns:
        mean squares with the shape of the batch, ``...``.
    """
    num_seeds, num_examples = sums.shape[-2:]
    losses = corpus_losses(sums, num_tokens)
    # What an example moves its seed's ratio by, times the number of examples.
    moves = sums - losses[..., None] * num_tokens[..., None, :]
    moves /= num_tokens.mean(axis=-1)[..., None, None]
    weights = np.square(num_tokens)
    of_examples = num_seeds * np.square(moves.mean(axis=-2)).sum(axis=-1)
    rest = np.square(moves).sum(axis=(-2, -1)) - of_examples
    return MeanSquares(
        estimate=losses.mean(axis=-1),
        seed=num_examples * losses.var(axis=-1, ddof=1),
        example=of_examples / (num_examples - 1),
        rest=np.maximum(rest, 0) / ((num_seeds - 1) * (num_examples - 1)),
        num_seeds=num_seeds,
        num_examples=num_examples,
        num_effective=np.square(weights.sum(axis=-1)) / np.square(weights).sum(axis=-1),
    )
