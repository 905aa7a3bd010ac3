"""What a scored split is: sums per row, and the figures that follow from them. No torch."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScore:
    """What a model gives to each row of a split; all arrays have shape (rows,).

    Attributes:
        row: index of the row in its split's source.
        nll: sum over scored tokens of -ln p, in nats.
        num_tokens: scored tokens.
        num_bytes: UTF-8 bytes of the scored text.
    """

    row: NDArray[np.int64]
    nll: NDArray[np.float64]
    num_tokens: NDArray[np.int64]
    num_bytes: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Corpus loss: Σ nll / Σ scored tokens, nats per token."""
        return float(self.nll.sum() / self.num_tokens.sum())

    @property
    def perplexity(self) -> float:
        """Exp of the corpus loss; infinite where that overflows."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float | None:
        """Σ nll / (ln 2 · Σ bytes) of the scored text, None where no byte is scored."""
        num_bytes = int(self.num_bytes.sum())
        return float(self.nll.sum() / (math.log(2) * num_bytes)) if num_bytes else None


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
