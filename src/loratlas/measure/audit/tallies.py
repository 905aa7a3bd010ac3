"""How sums and counts become one figure: the averages that people take. No torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LN_2 = math.log(2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tally:
    """What is averaged: a sum and a count for each row, or for each window of the rows.

    Attributes:
        nll: sum of -ln p, in nats, shape (entries,).
        count: what the sum is divided by (tokens, words or bytes), shape (entries,).
    """

    nll: NDArray[np.float64]
    count: NDArray[np.int64]

    def take(self, entries: NDArray[np.int64] | slice) -> "Tally":
        """Return the tally of some entries; one may be taken twice."""
        return Tally(nll=self.nll[entries], count=self.count[entries])

    @property
    def mean(self) -> float:
        """Σ nll / Σ count."""
        return float(self.nll.sum() / self.count.sum())


def corpus(tally: Tally) -> float:
    """Return Σ nll / Σ count over everything."""
    return tally.mean


def batch_means(tally: Tally, size: int) -> float:
    """Return the mean over batches of each batch's Σ nll / Σ count.

    A batch weighs as many times as it has rows, as in Trainer's evaluation, where only the
    last may be short. A batch with nothing to score is left out; Trainer's mean would be NaN.
    """
    means = [(batch.mean, len(batch.nll)) for batch in _batches(tally, size)]
    return math.fsum(mean * rows for mean, rows in means) / sum(rows for _, rows in means)


def accumulated_means(tally: Tally, size: int, accumulation: int) -> float:
    """Return the mean over optimiser steps of the mean of their micro-batches' means."""
    means = [batch.mean for batch in _batches(tally, size)]
    steps = [means[at : at + accumulation] for at in range(0, len(means), accumulation)]
    return math.fsum(math.fsum(step) / len(step) for step in steps) / len(steps)


def mean_perplexity(tally: Tally) -> float:
    """Return ln of the mean over entries of exp(nll / count)."""
    some = tally.count > 0
    exponents = tally.nll[some] / tally.count[some]
    largest = float(exponents.max())  # taken out of the sum, which would overflow
    return largest + math.log(float(np.exp(exponents - largest).mean()))


def _batches(tally: Tally, size: int) -> Iterator[Tally]:
    for at in range(0, len(tally.nll), size):
        batch = tally.take(slice(at, at + size))
        if batch.count.sum():
            yield batch
