"""Means over tokens, and their standard errors over rows."""

import numpy as np
import pytest

from loratlas.errors import TrialError
from loratlas.score.token_means import TokenMeans


def means_of(rows):
    """Take rows of one quantity, each an array of values by token."""
    found = TokenMeans(["a role"], len(rows))
    for number, values in enumerate(rows):
        found.add(0, np.full(len(values), number), np.asarray(values, dtype=float))
    return found


def test_every_token_weighs_the_same():
    found = means_of([[1, 2, 3], [10]])
    assert found.means().tolist() == [4]
    assert found.num_tokens.tolist() == [4]


def test_of_an_odd_number_of_rows_the_first_half_has_more():
    assert means_of([[1], [3], [8]]).of_halves().tolist() == [[2], [8]]


def test_rows_of_one_length_have_the_textbook_error():
    values = np.random.default_rng(0).standard_normal((12, 5))
    expected = values.mean(1).std(ddof=1) / np.sqrt(12)
    assert means_of(values).stderr(np.eye(1)) == pytest.approx([expected], rel=1e-12)


def test_the_error_is_how_far_means_of_other_rows_lie_apart():
    chance = np.random.default_rng(0)

    def draw():
        lengths = chance.integers(1, 12, size=40)
        shifts = chance.standard_normal(40)
        return [shift + chance.standard_normal(n) for shift, n in zip(shifts, lengths, strict=True)]

    drawn = [means_of(draw()) for _ in range(400)]
    apart = np.std([found.means()[0] for found in drawn])
    said = np.mean([found.stderr(np.eye(1))[0] for found in drawn])
    # A standard deviation of 400 draws is good to 3.5%; to first order, 40 rows to some percent.
    assert said == pytest.approx(apart, rel=0.12)


def test_quantities_of_the_same_rows_do_not_count_as_independent():
    values = np.random.default_rng(1).standard_normal((12, 5))
    found = TokenMeans(["a", "b"], 12)
    for quantity in range(2):
        for number, row in enumerate(values):
            found.add(quantity, np.full(5, number), row)
    alone, together, difference = found.stderr(np.array([[1, 0], [0.5, 0.5], [1, -1]]))
    assert together == pytest.approx(alone)
    assert difference == pytest.approx(0, abs=1e-12)


def test_nothing_to_measure_is_said():
    found = means_of([[1.0], [], [], []])
    assert found.means().tolist() == [1]
    with pytest.raises(TrialError, match="a role: there is nothing to measure in 2 rows"):
        found.of_halves()


def test_what_is_measured_nowhere_has_the_mean_of_its_group():
    found = TokenMeans(["a role", "a role", "a role", "another"], 2)
    for quantity, value in ((0, 1.0), (1, 4.0), (3, 7.0)):
        for row in range(2):
            found.add(quantity, np.array([row]), np.array([value]))
    assert found.means().tolist() == [1, 4, 2.5, 7]
    assert found.num_tokens.tolist() == [2, 2, 0, 2]
    errors = found.stderr(np.eye(4))
    assert np.isnan(errors).tolist() == [False, False, True, False]
    assert found.stderr(np.full((1, 4), 0.25)).tolist() == [0]
