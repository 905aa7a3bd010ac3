"""How may the losses of several placements be off *together*?

Placements score the same examples and share their seeds, so their errors are shared too: what is
a hard example for one is a hard one for all. The mean squares of `loratlas.analysis.components`,
with products of two placements in the place of squares, give the covariance

    M_s / (S E)  +  (M_e - M_r) / (S E)

of the S seeds' mean losses on E examples, for *new seeds and new examples*. The second matrix
counts only where it is positive (its eigenvalues below zero count as zero), as a negative
component does there.
"""

from dataclasses import dataclass

import numpy as np

from loratlas.analysis.components import Floats, corpus_losses


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """A joint distribution of figures, a multivariate t.

    Attributes:
        mean: best estimates, shape (figures,).
        covariance: of the estimates, shape (figures, figures).
        freedom: degrees of freedom, one for all of them.
    """

    mean: Floats
    covariance: Floats
    freedom: float

    def draw(self, count: int, generator: np.random.Generator) -> Floats:
        """Return draws, shape (count, figures)."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        normal = generator.standard_normal((count, len(self.mean))) @ root.T
        stretch = np.sqrt(self.freedom / generator.chisquare(self.freedom, size=(count, 1)))
        return np.asarray(self.mean + normal * stretch)


def joint(sums: Floats, num_tokens: Floats) -> Joint:
    """Return the joint distribution of corpus losses, or of any sums per token.

    Args:
        sums: of each example under each seed, shape (figures, seeds, examples), with at least
            two seeds and two examples; seed s of one figure is held against seed s of another.
        num_tokens: scored tokens, all positive, shape (examples,).
    """
    _, num_seeds, num_examples = sums.shape
    losses = corpus_losses(sums, num_tokens)
    moves = (sums - losses[..., None] * num_tokens) / num_tokens.mean()
    by_example = moves.mean(axis=1)
    of_examples = num_seeds * (by_example @ by_example.T)
    flat = moves.reshape(len(sums), -1)
    rest = (flat @ flat.T - of_examples) / ((num_seeds - 1) * (num_examples - 1))
    seeds = np.atleast_2d(np.cov(losses)) / num_seeds
    examples = _positive((of_examples / (num_examples - 1) - rest) / (num_seeds * num_examples))
    return Joint(
        mean=losses.mean(axis=1),
        covariance=seeds + examples,
        freedom=_freedom(seeds, examples, num_seeds, num_tokens),
    )


def _positive(matrix: Floats) -> Floats:
    """Return the nearest matrix without eigenvalues below zero."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


def _freedom(seeds: Floats, examples: Floats, num_seeds: int, num_tokens: Floats) -> float:
    """Return degrees of freedom for the average variance of a difference of two figures."""
    weights, count = np.square(num_tokens), len(num_tokens)
    effective = weights.sum() ** 2 / np.square(weights).sum() * (1 - 1 / count)
    by_seeds, by_examples = _of_differences(seeds), _of_differences(examples)
    slack = by_seeds / (num_seeds - 1) + by_examples / max(effective, 1.0)
    return float((by_seeds + by_examples) / slack) if slack > 0 else float(num_seeds - 1)


def _of_differences(covariance: Floats) -> float:
    if len(covariance) == 1:
        return float(covariance[0, 0])
    return float(np.trace(covariance) - covariance.mean() * len(covariance))
