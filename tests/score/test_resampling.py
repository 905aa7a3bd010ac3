"""Groups of rows and the jackknife against closed forms."""

import numpy as np
import pytest

from loratlas.score import resampling
from loratlas.score.resampling import Kept, affordable_groups, groups_of, halves, jackknife


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
    first, second = halves(num_rows)
    assert np.flatnonzero(groups < len(sizes) // 2).tolist() == list(first)
    assert len(first) == -(-num_rows // 2)
    assert [*first, *second] == list(range(num_rows))


def test_groups_are_given_up_before_memory_is(monkeypatch):
    monkeypatch.setattr(resampling, "MOST_BYTES", 4 * 100)
    for by_group, wanted in ((10, 8), (11, 6), (40, 2), (41, 0)):
        assert affordable_groups(Kept(once=20, by_group=by_group), num_rows=32) == wanted
    # Three rows make two groups, whatever there is room for.
    assert affordable_groups(Kept(once=20, by_group=10), num_rows=3) == 2
    assert Kept(once=20, by_group=10).num_bytes(8) == 400
