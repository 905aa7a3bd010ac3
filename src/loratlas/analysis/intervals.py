"""How far a mean over seeds may be off."""

import math
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> list[float] | None:
    """Return the t interval of a mean.

    It captures the uncertainty of *new seeds on these same rows*, not of new rows.

    Args:
        values: one figure a seed, shape (seeds,).
        confidence: coverage, between 0 and 1.

    Returns:
        ``[low, high]``, None with fewer than two values or with one that is not finite.
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return None
    mean = math.fsum(values) / len(values)
    error = stats.sem(values)
    if error == 0:
        return [mean, mean]
    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean, scale=error)
    return [float(low), float(high)]
