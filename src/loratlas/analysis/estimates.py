"""What is a difference of corpus losses, how far may it be off, and what cannot be said?

Several seeds: crossed components of variance and t, for *new seeds and new examples*. One seed: a
bootstrap over examples, for *new examples, this seed*. Where there is nothing to judge by, the
figures are None and a sentence says why; no figure is ever NaN or infinite.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from loratlas.analysis.bootstrap import FEWEST_EXAMPLES, Bootstrap, bootstrap
from loratlas.analysis.components import Counts, Floats, MeanSquares, corpus_losses, mean_squares
from loratlas.analysis.intervals import CONFIDENCE

Scope = Literal["new seeds and new examples", "new examples, this seed"]
# Far above what rounding leaves of a spread that is zero, far below any that is not.
_ROUNDING = 1e-12
# Measured by benchmarks/contrasts.py.
_TWO_SEEDS = (
    "Two seeds: an interval called 95% holds the truth in 91% of studies where seeds differ most."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A difference of corpus losses in nats per token, with its uncertainty.

    Attributes:
        value: Σ nats / Σ tokens, averaged over seeds; None where a score is missing or is no
            number.
        scope: what the uncertainty captures; None where there is none.
        interval: at the asked confidence.
        p_less: one-sided p of the hypothesis that the truth is zero or above.
        p_greater: one-sided p of the hypothesis that the truth is zero or below.
        standard_error: of the value.
        freedom: degrees of freedom of the standard error; None for the bootstrap.
        seed_deviation: standard deviation of a seed's effect; None with one seed.
        example_deviation: standard deviation of an example's effect, weighted by tokens; None
            with one seed.
        rest_deviation: standard deviation of what is particular to one example under one seed.
        per_seed: the value of each seed; empty where there is no value.
        num_seeds: seeds that it rests on.
        num_examples: examples with scored tokens that it rests on.
        says: what cannot be said, in sentences.
    """

    value: float | None
    scope: Scope | None = None
    interval: tuple[float, float] | None = None
    p_less: float | None = None
    p_greater: float | None = None
    standard_error: float | None = None
    freedom: float | None = None
    seed_deviation: float | None = None
    example_deviation: float | None = None
    rest_deviation: float | None = None
    per_seed: tuple[float, ...] = ()
    num_seeds: int
    num_examples: int
    says: tuple[str, ...] = ()

    @property
    def p_value(self) -> float | None:
        """Two-sided p of the hypothesis that the truth is zero."""
        if self.p_less is None or self.p_greater is None:
            return None
        return min(1.0, 2 * min(self.p_less, self.p_greater))


def estimate(
    sums: Floats, num_tokens: Counts, *, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Estimate a corpus loss, or a difference of such, and its uncertainty.

    Args:
        sums: nats of each example under each seed, shape (seeds, examples).
        num_tokens: scored tokens, shape (examples,); examples without any take no part.
        confidence: coverage of the interval, between 0 and 1.
        seed: of the bootstrap, which is used with one seed.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if sums.ndim != 2 or num_tokens.shape != sums.shape[1:]:
        raise ValueError(
            f"sums of shape {sums.shape} with token counts of shape {num_tokens.shape}; "
            f"expected (seeds, examples) and (examples,)"
        )
    scored = num_tokens > 0
    sums, tokens = sums[:, scored], num_tokens[scored].astype(np.float64)
    num_seeds, num_examples = sums.shape
    missing = tuple(_missing(sums))
    if missing:
        return Estimate(value=None, num_seeds=num_seeds, num_examples=num_examples, says=missing)
    # Figures near one: squares of scores can neither overflow nor vanish.
    scale = float(np.abs(sums).max() / tokens.mean()) or 1.0
    sums = sums / scale
    found = _uncertainty(sums, tokens, confidence, seed)
    return _rescaled(found, corpus_losses(sums, tokens), scale)


def _uncertainty(sums: Floats, num_tokens: Floats, confidence: float, seed: int) -> Estimate:
    """Choose the method; the value is filled in by the caller."""
    num_seeds, num_examples = sums.shape
    squares = mean_squares(sums, num_tokens) if num_seeds > 1 and num_examples > 1 else None
    flat = tuple(_flat(sums, num_tokens, squares))
    if flat:
        return Estimate(value=None, num_seeds=num_seeds, num_examples=num_examples, says=flat)
    if squares is None:
        return _of_one_seed(bootstrap(sums[0], num_tokens, seed=seed), num_examples, confidence)
    return _of_seeds(squares, confidence)


def _rescaled(found: Estimate, per_seed: Floats, scale: float) -> Estimate:
    """Put an estimate of scaled scores back into nats per token."""

    def back(figure: float | None) -> float | None:
        return None if figure is None else figure * scale

    return replace(
        found,
        value=float(per_seed.mean()) * scale,
        per_seed=tuple((per_seed * scale).tolist()),
        interval=found.interval and (found.interval[0] * scale, found.interval[1] * scale),
        standard_error=back(found.standard_error),
        seed_deviation=back(found.seed_deviation),
        example_deviation=back(found.example_deviation),
        rest_deviation=back(found.rest_deviation),
    )


def _missing(sums: Floats) -> Iterator[str]:
    """Say why there is not even a value."""
    num_seeds, num_examples = sums.shape
    if not num_seeds:
        yield "There is no seed to compare."
    elif not num_examples:
        yield "No example has a scored token."
    elif not np.isfinite(sums).all():
        yield f"{np.count_nonzero(~np.isfinite(sums))} of {sums.size} scores are no numbers."


def _flat(sums: Floats, num_tokens: Floats, squares: MeanSquares | None) -> Iterator[str]:
    """Say why a value has no uncertainty that could be known."""
    per_token = sums / num_tokens
    largest = float(np.abs(per_token).max())
    if sums.shape[1] == 1:
        yield "One example has no spread: nothing can be said about others."
    elif largest == 0:
        yield "Every seed and example gives the same score: the difference is exactly zero."
    elif np.ptp(per_token) <= _ROUNDING * largest:
        yield (
            "Every seed and example gives the same difference per token: there is no spread "
            "to judge it by."
        )
    elif squares is None and sums.shape[1] < FEWEST_EXAMPLES:
        yield (
            f"One seed and {sums.shape[1]} examples: fewer than {FEWEST_EXAMPLES} are too few to "
            f"say anything about others."
        )
    elif squares is not None and math.sqrt(float(squares.variance)) <= _ROUNDING * largest:
        yield (
            "The seeds agree exactly and examples differ no more than by chance: there is no "
            "spread to judge the difference by."
        )


def _of_seeds(squares: MeanSquares, confidence: float) -> Estimate:
    value, freedom = float(squares.estimate), float(squares.freedom)
    error = math.sqrt(float(squares.variance))
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(
        value=value,
        scope="new seeds and new examples",
        interval=(value - reach, value + reach),
        p_less=float(stats.t.cdf(value / error, freedom)),
        p_greater=float(stats.t.sf(value / error, freedom)),
        standard_error=error,
        freedom=freedom,
        seed_deviation=math.sqrt(float(squares.seed_variance)),
        example_deviation=math.sqrt(float(squares.example_variance)),
        rest_deviation=math.sqrt(float(squares.rest)),
        num_seeds=squares.num_seeds,
        num_examples=squares.num_examples,
        says=(_TWO_SEEDS,) if squares.num_seeds == 2 else (),
    )


def _of_one_seed(found: Bootstrap, num_examples: int, confidence: float) -> Estimate:
    p_less = found.p_less()
    return Estimate(
        value=None,
        scope="new examples, this seed",
        interval=found.interval(confidence),
        p_less=p_less,
        p_greater=1 - p_less,
        standard_error=found.standard_error,
        num_seeds=1,
        num_examples=num_examples,
        says=("One seed: the interval is for this seed alone; another may lie outside it.",),
    )
