"""The sign-flip test, held against enumeration and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.power import smallest_sign_flip_p
from loratlas.analysis.sign_flip import SignFlip, sign_flip

DIFFERENCES = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.2])


def test_by_enumeration():
    sums = [np.dot(signs, DIFFERENCES) for signs in product((-1, 1), repeat=6)]
    expected = np.mean(np.abs(sums) >= abs(DIFFERENCES.sum()) - 1e-12)
    assert sign_flip(DIFFERENCES) == SignFlip(p_value=expected, smallest=1 / 32, exact=True)


def test_it_is_scipys():
    theirs = stats.permutation_test(
        (DIFFERENCES,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(DIFFERENCES).p_value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("pairs", [1, 2, 5, 6, 16])
def test_all_signs_alike_reach_the_smallest_value(pairs):
    found = sign_flip(np.linspace(1, 2, pairs))
    assert found.p_value == found.smallest == smallest_sign_flip_p(pairs)


def test_many_seeds_are_sampled_and_repeatable():
    # p is 2 P(Z > 2) or so; 99,999 patterns have a standard error below 0.1%.
    chance = np.random.default_rng(0)
    values = chance.normal(0.45, 1, size=20)
    exact = 2 * stats.norm.sf(abs(values.sum()) / np.sqrt(np.sum(values**2)))
    found = sign_flip(values)
    assert not found.exact
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found == sign_flip(values)
    assert found != sign_flip(values, seed=1)


def test_ties_have_no_sign():
    assert sign_flip(np.array([0.0, 0.0, 0.5, 0.25])).smallest == 0.5
    assert sign_flip(np.zeros(3)) == SignFlip(p_value=1.0, smallest=1.0, exact=True)
    assert sign_flip(np.empty(0)) is None
