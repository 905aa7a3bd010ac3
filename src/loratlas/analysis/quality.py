"""How good the predictions of a model are, beside its loss: figures over one split."""

import math
from collections.abc import Sequence
from typing import Any

from loratlas.analysis.intervals import mean_interval
from loratlas.measure.scores import SplitScore

KEYS = ("perplexity", "bits_per_byte", "accuracy", "macro_f1")


def base_quality(score: SplitScore | None) -> dict[str, Any]:
    """Return what the untuned base gives: loss, the figures of `KEYS`, and what was scored."""
    if score is None:
        return dict.fromkeys(("loss", *KEYS, "num_rows", "num_tokens"))
    return {
        "loss": finite(score.loss),
        "perplexity": finite(score.perplexity),
        "bits_per_byte": finite(score.bits_per_byte),
        "accuracy": finite(score.accuracy),
        "macro_f1": finite(score.macro_f1),
        "num_rows": len(score.row),
        "num_tokens": int(score.num_tokens.sum()),
    }


def quality(scores: Sequence[SplitScore]) -> dict[str, Any]:
    """Return means over the seeds of one placement, None where a figure has no meaning.

    The intervals capture the uncertainty of *new seeds on these same rows*.

    Args:
        scores: one a seed, all of the same rows.

    Returns:
        `bits_per_byte` (its mean follows the loss), `accuracy` of the scored tokens or classes
        and `macro_f1` of classes, the last two with intervals.
    """
    accuracy = [score.accuracy for score in scores]
    f1 = [score.macro_f1 for score in scores]
    return {
        "bits_per_byte": mean([score.bits_per_byte for score in scores]),
        "accuracy": mean(accuracy),
        "accuracy_interval": mean_interval([each for each in accuracy if each is not None]),
        "macro_f1": mean(f1),
        "macro_f1_interval": mean_interval([each for each in f1 if each is not None]),
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, None where there are no values or one is unknown."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return finite(math.fsum(known) / len(known))


def finite(value: float | None) -> float | None:
    """Return the value, None where it is unknown, infinite or no number: JSON has no such word."""
    return value if value is not None and math.isfinite(value) else None
