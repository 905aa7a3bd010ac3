"""Groups of rows and the jackknife against closed forms."""

import numpy as np
import pytest

from loratlas.score.resampling import groups_of, in_first_half, jackknife


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=(12, 3))
    left_out = (values.sum(0) - values) / 11
    np.testing.assert_allclose(jackknife(left_out), values.std(0, ddof=1) / np.sqrt(12))


@pytest.mark.parametrize("num_rows", [2, 3, 5, 8, 9, 15, 100])
def test_groups_are_runs_of_about_equal_length_that_divide_in_halves(num_rows):
    groups = groups_of(num_rows)
    sizes = np.bincount(groups)
    assert (np.diff(groups) >= 0).all()
    assert len(sizes) % 2 == 0
    assert len(sizes) == min(8, num_rows - num_rows % 2)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(groups < len(sizes) // 2, in_first_half(num_rows))
    assert in_first_half(num_rows).sum() == -(-num_rows // 2)
