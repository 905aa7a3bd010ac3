"""Could chance have given the seeds these signs?

R. A. Fisher's exact test (The Design of Experiments, 1935, chapter 3): if a placement and its
baseline were alike, each seed's difference would as likely have had the other sign. It captures
*new seeds on these same examples*, assumes no distribution, and stands beside the contrast as a
check: with few seeds it cannot reach small values.
"""

from dataclasses import dataclass

import numpy as np

from loratlas.analysis.components import Floats

_MOST_ENUMERATED = 16
_NUM_DRAWN = 99_999
# Sums that are equal on paper differ by rounding; ties count as extreme.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class SignFlip:
    """The two-sided sign-flip test of a mean of zero.

    Attributes:
        p_value: share of sign patterns whose mean is at least as far from zero.
        smallest: the smallest p value that so many seeds could have given.
        exact: whether every pattern was counted, or a random sample of them.
    """

    p_value: float
    smallest: float
    exact: bool


def sign_flip(differences: Floats, *, seed: int = 0) -> SignFlip | None:
    """Flip the signs of paired differences.

    Args:
        differences: one a seed, nats per token, shape (seeds,).
        seed: of the draw of patterns, which is needed with more than 16 seeds.

    Returns:
        None without a seed. Seeds whose difference is exactly zero have no sign and do not
        take part; without any other, p is 1.
    """
    if not len(differences):
        return None
    signed = differences[differences != 0]
    if not len(signed):
        return SignFlip(p_value=1.0, smallest=1.0, exact=True)
    signed = signed / np.abs(signed).max()
    exact = len(signed) <= _MOST_ENUMERATED
    signs = _all_signs(len(signed)) if exact else _some_signs(len(signed), seed)
    extreme = np.abs(signs @ signed) >= abs(signed.sum()) - _ROUNDING * len(signed)
    # The pattern that was seen is one of the drawn, as it is one of the enumerated.
    p_value = extreme.mean() if exact else (1 + extreme.sum()) / (1 + len(extreme))
    smallest = 2.0 ** (1 - len(signed)) if exact else 1 / (1 + _NUM_DRAWN)
    return SignFlip(p_value=float(p_value), smallest=smallest, exact=exact)


def _all_signs(count: int) -> Floats:
    """Return every pattern whose first sign is plus; the others are their mirror images."""
    codes = np.arange(2 ** (count - 1))
    return np.where((codes[:, None] >> np.arange(count)) & 1, -1.0, 1.0)


def _some_signs(count: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).integers(2, size=(_NUM_DRAWN, count))
    return np.where(drawn, -1.0, 1.0)
