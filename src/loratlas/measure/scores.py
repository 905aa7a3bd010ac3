"""What a scored split is: sums per row, and the figures that follow from them. No torch."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Right predictions of a row that nobody counted, as of one that was imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScore:
    """What a model gives to each row of a split; all arrays have shape (rows,).

    Attributes:
        row: index of the row in its split's source.
        nll: sum over scored predictions of -ln p, in nats.
        num_tokens: scored predictions: tokens, or the one class of a row.
        num_bytes: UTF-8 bytes of the scored text.
        num_correct: scored predictions whose most likely value is the right one, or `UNKNOWN`.
        label: index of the row's class; None for language models.
        predicted: index of the most likely class; None for language models.
    """

    row: NDArray[np.int64]
    nll: NDArray[np.float64]
    num_tokens: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    label: NDArray[np.int64] | None = None
    predicted: NDArray[np.int64] | None = None

    @property
    def loss(self) -> float:
        """Corpus loss: Σ nll / Σ scored predictions, in nats."""
        return float(self.nll.sum() / self.num_tokens.sum())

    @property
    def perplexity(self) -> float | None:
        """Exp of the corpus loss, infinite where that overflows; None for classes."""
        return perplexity(self.loss) if self.label is None else None

    @property
    def bits_per_byte(self) -> float | None:
        """Σ nll / (ln 2 · Σ bytes) of the scored text, None where no byte is scored."""
        num_bytes = int(self.num_bytes.sum())
        return float(self.nll.sum() / (math.log(2) * num_bytes)) if num_bytes else None

    @property
    def accuracy(self) -> float | None:
        """Share of scored predictions, tokens or classes, whose most likely value is right.

        None where it was not counted.
        """
        if (self.num_correct == UNKNOWN).any():
            return None
        return float(self.num_correct.sum() / self.num_tokens.sum())

    @property
    def macro_f1(self) -> float | None:
        """Mean over classes of F1 = 2·TP / (2·TP + FP + FN); None for language models.

        The classes are those that occur among labels or predictions, each with equal weight.
        """
        if self.label is None or self.predicted is None:
            return None
        classes = np.union1d(self.label, self.predicted)
        hits = [int(((self.label == c) & (self.predicted == c)).sum()) for c in classes]
        named = [int((self.label == c).sum() + (self.predicted == c).sum()) for c in classes]
        scores = [2 * hit / total for hit, total in zip(hits, named, strict=True)]
        return math.fsum(scores) / len(scores)


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
